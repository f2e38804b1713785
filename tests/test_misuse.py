"""Using the library as it is not meant to be used: a clear error, and everything that was accepted is kept."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import BackpressureError, ClosedError, ConfigError, InputError, MemoryPipeline
from mos_pipeline.service.client import RemoteMemory
from tests.support import all_pages, open_fake, page_text

IDLE_S = 60.0
CALLS: dict[str, Callable[[MemoryPipeline], Any]] = {
    "add": lambda memory: memory.add("tom", "a", "b"),
    "add_batch": lambda memory: memory.add_batch([{"user_id": "tom", "user_input": "a", "agent_response": "b"}]),
    "add_many": lambda memory: memory.add_many([{"user_id": "tom", "user_input": "a", "agent_response": "b"}]),
    "analyse": lambda memory: memory.analyse("tom"),
    "backup": lambda memory: memory.backup("nowhere"),
    "compact": lambda memory: memory.compact(1.0),
    "flush": lambda memory: memory.flush(),
    "forget": lambda memory: memory.forget("tom"),
    "get": lambda memory: memory.get("an id"),
    "knowledge": lambda memory: memory.knowledge("tom"),
    "pages": lambda memory: memory.pages(),
    "profile": lambda memory: memory.profile("tom"),
    "refresh": lambda memory: memory.refresh(),
    "repay": lambda memory: memory.repay(),
    "respond": lambda memory: memory.respond("tom", "a"),
    "respond_stream": lambda memory: memory.respond_stream("tom", "a"),
    "retrieve": lambda memory: memory.retrieve("tom", "a"),
    "retry": lambda memory: memory.retry(),
    "sessions": lambda memory: memory.sessions("tom"),
    "sources": lambda memory: memory.sources(),
    "stats": lambda memory: memory.stats(),
    "taken_over": lambda memory: memory.taken_over("tom"),
    "users": lambda memory: memory.users(),
    "verify": lambda memory: memory.verify(),
    "wait_idle": lambda memory: memory.wait_idle(1.0),
}


def test_every_method_is_tried_here() -> None:
    methods = {name for name in dir(MemoryPipeline) if not name.startswith("_")}
    assert methods - {"open", "close", "closed"} == CALLS.keys()


def test_every_method_refuses_after_close(tmp_path: Path) -> None:
    memory = open_fake(tmp_path / "store", workers=False)
    memory.close()
    memory.close()
    for name, call in CALLS.items():
        with pytest.raises(ClosedError, match=r"used after close\(\); open the store again"):
            call(memory)
            pytest.fail(f"{name} works on a closed pipeline")
    assert not Path("nowhere").exists()


def test_close_while_eight_threads_add_loses_no_page(tmp_path: Path) -> None:
    accepted: dict[int, list[str]] = {number: [] for number in range(8)}
    errors = list[BaseException]()
    memory = open_fake(tmp_path)

    def work(number: int) -> None:
        try:
            while True:
                accepted[number].append(memory.add(f"user {number}", *page_text(len(accepted[number]))))
        except ClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in accepted]
    for thread in threads:
        thread.start()
    while min(map(len, accepted.values())) < 50:
        threads[0].join(0.001)
    closers = [threading.Thread(target=memory.close) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in (*closers, *threads):
        thread.join(IDLE_S)
        assert not thread.is_alive()
    assert len(errors) == 8
    with open_fake(tmp_path, workers=False) as memory:
        for number, ids in accepted.items():
            assert [page.page_id for page in all_pages(memory, f"user {number}")] == ids


def _child(memory: MemoryPipeline, result: int) -> None:
    """What a forked child does with its parent's pipeline; every refusal is a byte, anything else a word."""
    for name, call in CALLS.items():
        try:
            call(memory)
            os.write(result, name.encode())
        except ClosedError as error:
            os.write(result, b"." if "forked child" in str(error) else str(error).encode())
    memory.close()
    memory.__exit__(None, None, None)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("way", ["sys.exit", "os._exit"])
def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path, way: str) -> None:
    with open_fake(tmp_path) as memory:
        ids = [memory.add("tom", *page_text(number)) for number in range(20)]
        memory.wait_idle(IDLE_S)
        before = memory.stats().workers
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                _child(memory, write)
                if way == "sys.exit":
                    # As at the end of a program of its own: what is registered with atexit runs.
                    import atexit

                    atexit._run_exitfuncs()
            finally:
                os._exit(0)
        os.close(write)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(read, 4096) == b"." * len(CALLS)
        os.close(read)
        ids.append(memory.add("tom", "after the child", ""))
        memory.wait_idle(IDLE_S)
        after = memory.stats().workers
        assert {role: worker.pids for role, worker in after.items()} == {
            role: worker.pids for role, worker in before.items()
        }
        hit = memory.retrieve("tom", "after the child", k=1, timeout=IDLE_S).pages[0]
        assert hit.page.page_id == ids[-1] and hit.dense is not None
        assert RemoteMemory(tmp_path).users() == ["tom"], "the child took the socket away"
    with open_fake(tmp_path, workers=False) as memory:
        assert [page.page_id for page in all_pages(memory)] == ids


@pytest.mark.parametrize("workers", [True, False])
def test_questions_of_any_size_are_answered(tmp_path: Path, workers: bool) -> None:
    with open_fake(tmp_path, workers=workers, retrieval__timeout_s=IDLE_S if workers else 1.0) as memory:
        for number in range(30):
            memory.add("tom", *page_text(number))
        if workers:
            memory.wait_idle(IDLE_S)
        for query in ("", " \n\t", "?!", "\0", "\ud800", "number7 " * 131_072, "x" * (1 << 20), "漢" * 350_000):
            found = memory.retrieve("tom", query, k=3)
            assert len(found.pages) <= 3
            assert found.degraded != workers
        for k in (30, 31, 10**6, sys.maxsize, 1 << 70):
            assert len(memory.retrieve("tom", "number7 violin", k=k).pages) <= 30
            assert memory.retrieve("tom", "number7 violin", k=k).pages[0].page.user_input.startswith("number7 ")
        for wrong in (0, -1, 1.5, True, "3"):
            with pytest.raises(InputError, match="k must be a whole number of at least 1"):
                memory.retrieve("tom", "number7", k=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("store__journal_bytes", "4 MiB", "must be of type int, found '4 MiB'"),
        ("store__journal_bytes", 4.0, "must be of type int"),
        ("store__journal_bytes", 4, "must be at least 65536 bytes"),
        ("runtime__close_timeout_s", "10s", "must be of type float, found '10s'"),
        ("runtime__close_timeout_s", float("inf"), "must be a finite number"),
        ("runtime__close_timeout_s", float("nan"), "must be a finite number"),
        ("runtime__close_timeout_s", -1, "must be at least 0.1 seconds"),
        ("runtime__socket", 1, "must be of type bool"),
        ("runtime__socket", "yes", "must be of type bool"),
        ("retrieval__k", True, "must be of type int"),
        ("store__max_dead_ratio", 25, "must be at most 1.0"),
        ("store__durability", "full", "must be one of process, power"),
        ("store__durability", None, "must be of type str"),
        ("store", 7, "expected a section"),
        ("stroe__durability", "power", "the nearest known one is 'store.durability'"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_made(
    tmp_path: Path, setting: str, value: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        open_fake(tmp_path / "store", **{setting: value})
    assert not (tmp_path / "store").exists()


def test_a_page_that_fills_the_backlog_alone_is_taken_and_the_next_refused(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False, backlog__max_bytes=1, backlog__policy="raise") as memory:
        memory.add("tom", "x" * 5_000_000, "")
        with pytest.raises(BackpressureError, match="high-water mark"):
            memory.add("tom", "a", "b")
        assert len(all_pages(memory)) == 1
