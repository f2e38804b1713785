"""The profile's own logic, and one small run of it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from mos_pipeline import MemoryPipeline
from perf import profile, usage
from perf.kinds import OTHER, busiest, by_kind, kind_of
from perf.options import Options
from perf.sampling import Stacks, ThreadSampler, children_sampled, parse, stacks_of
from tests.faults.common import PATIENCE_S
from tests.support import children

SAMPLES = 50

DUMP = """Stack (most recent call first):
  File "/lib/msgpack/__init__.py", line 36 in packb
  File "/x/mos_pipeline/messages.py", line 68 in encode
  File "/x/mos_pipeline/engine/coordinator.py", line 218 in _run
  File "/lib/threading.py", line 982 in run
Stack (most recent call first):
  File "/x/mos_pipeline/engine/coord"""


def test_what_was_written_is_read_and_what_is_cut_off_counts_for_nothing() -> None:
    files = "/lib/msgpack/__init__.py", "/x/mos_pipeline/messages.py", "/x/mos_pipeline/engine/coordinator.py"
    functions = "packb", "encode", "_run"
    stack = (*zip(files, functions, strict=True), ("/lib/threading.py", "run"))
    assert parse(DUMP) == {stack: 1}
    assert parse("") == {}


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["/x/mos_pipeline/store/codec.py", "/x/mos_pipeline/stages/write.py"], "compression"),
        (["/lib/numpy/linalg.py", "/x/mos_pipeline/runtime/vector_pool.py"], "vectors"),
        (["/lib/multiprocessing/queues.py", "/x/mos_pipeline/runtime/channel.py"], "queues, pipes, wake-ups"),
        (["/x/mos_pipeline/some/thing.py", "/lib/threading.py"], OTHER),
        (["/lib/threading.py"], OTHER),
    ],
)
def test_the_innermost_frame_that_tells_a_kind_counts(files: list[str], kind: str) -> None:
    assert kind_of(tuple((file, "f") for file in files)) == kind


def test_shares_add_up_and_functions_are_named() -> None:
    one, other = (("/x/mos_pipeline/store/codec.py", "pack"),), (("/x/mos_pipeline/memory/words.py", "split"),)
    stacks = Stacks({one: 3, other: 1})
    assert by_kind(stacks) == {"compression": 0.75, "words": 0.25}
    assert busiest(stacks, 1) == ["store/codec.py:pack 75%"]
    assert by_kind(Stacks()) == {}


def _much(stop: float) -> None:
    while time.thread_time() < stop:
        sum(range(1000))


def _little(stop: float) -> None:
    while time.thread_time() < stop:
        sum(range(1000))


def test_a_thread_is_met_where_it_spends_its_time(tmp_path: Path) -> None:
    begun, go, enough = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait()
        while not enough.is_set():  # on a busy machine many signals are noted as one
            start = time.thread_time()
            _little(start + 0.01)
            _much(start + 0.11)

    def met() -> list[str]:
        return [function for stack in stacks_of(tmp_path / "stacks").elements() for _, function in stack]

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    before = usage.of_process(os.getpid())
    sampler = ThreadSampler(thread, tmp_path / "stacks")
    go.set()
    deadline = time.monotonic() + PATIENCE_S
    try:
        while met().count("work") < SAMPLES and time.monotonic() < deadline:
            thread.join(0.1)
    finally:
        enough.set()
        while thread.is_alive():
            thread.join(0.1)
        sampler.stop()
    signal.raise_signal(sampler._signal)  # one that comes late ends nothing
    assert usage.of_process(os.getpid()).since(before).gave_up > 0
    assert met().count("work") >= SAMPLES
    assert met().count("_much") > 2 * met().count("_little")


COLLECTING = """
import gc, pathlib, sys, threading, time
from perf.sampling import ThreadSampler

def deep(calls):
    return calls and deep(calls - 1)

def work():
    while not over.is_set():
        deep(900)

def give_way(*_):
    for _ in range(3000):
        pass

over = threading.Event()
thread = threading.Thread(target=work)
thread.start()
try:
    sampler = ThreadSampler(thread, pathlib.Path(sys.argv[1]))
    sys.setswitchinterval(1e-6)
    gc.callbacks.append(give_way)
    gc.set_threshold(7, 10, 10)
    for number in range(20_000):
        sampler._note(0, None)
    sampler.stop()
finally:
    over.set()
"""


def test_a_collection_meanwhile_takes_no_frame_away() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTING, os.devnull], check=False, timeout=120)
    assert done.returncode == 0


@contextmanager
def sampled(path: Path, number: int = 0) -> Iterator[ThreadSampler]:
    sampler = ThreadSampler(threading.main_thread(), path, number)
    try:
        yield sampler
    finally:
        sampler.stop()


def test_a_look_is_not_interrupted_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sampled(tmp_path / "stacks") as sampler:
        stack = sampler._stack

        def interrupted(frame: FrameType | None) -> str:
            sampler._note(0, frame)
            return stack(frame)

        monkeypatch.setattr(sampler, "_stack", interrupted)
        sampler._note(0, sys._getframe())
    assert stacks_of(tmp_path / "stacks").total() >= 1


def test_collecting_is_as_it_was_after_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sampled(tmp_path / "outer", 0) as outer, sampled(tmp_path / "inner", 1) as inner:
        stack, seen = outer._stack, list[bool]()

        def interrupted(frame: FrameType | None) -> str:
            inner._note(0, frame)
            seen.append(gc.isenabled())
            return stack(frame)

        monkeypatch.setattr(outer, "_stack", interrupted)
        outer._note(0, sys._getframe())
        assert gc.isenabled()
    assert seen
    assert not any(seen)


def test_children_are_sampled_in_the_block_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with children_sampled(tmp_path / "notes"):
        pass
    with MemoryPipeline.open(tmp_path / "store", embedding__backend="fake") as memory:
        memory.add("ann", "one", "")
        memory.wait_idle(60)
    assert not list((tmp_path / "notes").iterdir())


def test_a_small_profile_adds_up(tmp_path: Path) -> None:
    result = profile.run(Options(quick=True, pages=240, backend="fake", folder=tmp_path))
    assert not children()
    assert not list(tmp_path.iterdir())
    found = {figure.name: figure.median for figure in result.figures}
    main = ["caller", "coordinator", "supervisor", "feeders"]
    assert found["the caller's process"] == pytest.approx(sum(found[stage] for stage in main))
    roles = ["embedder", "llm", "writer"]
    total = found["the caller's process"] + sum(found[role] for role in roles)
    assert found["processor time for a page"] == pytest.approx(total)
    for stage in (*main[:-1], *roles):
        kinds = [value for name, value in found.items() if name.startswith(f"{stage}: ")]
        assert sum(kinds) == pytest.approx(found[stage])
    for role in roles:
        assert found[f"bytes to the {role} for a page"] > 0
    assert found["bytes to the llm for a page"] > 2 * 384  # a vector goes with each page
