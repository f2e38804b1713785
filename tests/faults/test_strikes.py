"""Whatever strikes whichever process at whatever moment: nothing that was accepted is lost, doubled or reordered."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.engine import embedding, engine, llm_role
from mos_pipeline.store.verify import verify_store
from tests.faults import stages
from tests.faults.common import PATIENCE_S, check_consistent, check_order, fill, nothing_left, until
from tests.faults.processes import driver, noted, session
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

ROLES = ("embedder", "llm", "writer")
SETTINGS: dict[str, Any] = {
    "llm__processes": 1,
    "store__flush_interval_s": 0.02,
    "runtime__restart_backoff_s": 0.001,
    "runtime__work_timeout_s": 1.0,
    "runtime__close_timeout_s": 2.0,
}


def signalled(number: int) -> Callable[[int], None]:
    return lambda pid: os.kill(pid, number)


def starved(pid: int) -> None:
    """Let a process get no memory any more: what the kernel's killer does is SIGKILL, and this is what comes before."""
    hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, hard))


STRIKES = {
    "SIGSEGV": signalled(signal.SIGSEGV),
    "exit code 0": signalled(signal.SIGUSR1),
    "hang": signalled(signal.SIGSTOP),
    "out of memory": starved,
}


def strike_all(memory: MemoryPipeline, strike: Callable[[int], None]) -> None:
    """Strike every worker once."""
    for worker in memory.stats().workers.values():
        for pid in worker.pids:
            strike(pid)


def restarts(memory: MemoryPipeline) -> dict[str, int]:
    return {role: worker.restarts for role, worker in memory.stats().workers.items()}


def all_ready(memory: MemoryPipeline) -> bool:
    return all(worker.state == "ready" for worker in memory.stats().workers.values())


def accepted_by(memory: MemoryPipeline) -> dict[str, list[str]]:
    return {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}


@pytest.mark.parametrize("how", STRIKES)
def test_workers_struck_at_any_moment_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """When they rest, when they start, in the midst of work, and while the store is closed."""
    monkeypatch.setattr(embedding, "EmbedStage", stages.LeavingEmbedStage)
    monkeypatch.setattr(llm_role, "TaskStage", stages.LeavingTaskStage)
    monkeypatch.setattr(engine, "build_writer", stages.build_leaving_writer)
    strike = STRIKES[how]
    with nothing_left():
        memory = open_fake(tmp_path / "store", **SETTINGS)
        until(lambda: all_ready(memory), "all are ready")
        strike_all(memory, strike)  # at rest; who hangs or starves is found out by work
        fill(memory, 27)
        until(lambda: min(restarts(memory).values()) >= 1, "all were replaced")
        if how not in {"hang", "out of memory"}:
            strike_all(memory, strike)  # who is there already, starts
        memory.wait_idle(PATIENCE_S)
        fill(memory, 60, first=27)
        strike_all(memory, strike)  # at work
        memory.wait_idle(PATIENCE_S)
        check_consistent(memory)
        assert not memory.stats().set_aside
        fill(memory, 27, first=87)
        accepted = accepted_by(memory)
        closing = threading.Thread(target=memory.close)
        strike_all(memory, strike)
        closing.start()
        closing.join()
    assert sum(map(len, accepted.values())) == 114
    check_kept(tmp_path / "store", accepted)


def check_kept(store: Path, accepted: Mapping[str, Sequence[str]], unnoted: int = 0) -> None:
    report = verify_store(store)
    assert report.ok, report.problems
    with nothing_left(), open_fake(store, workers=False) as memory:
        check_order(memory, accepted, unnoted=unnoted)


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGTERM", "SIGINT", "SIGUSR1"])
def test_an_owner_that_ends_by_any_signal_leaves_all_it_accepted(tmp_path: Path, number: str) -> None:
    """SIGUSR1 makes it leave with exit code 0, and without a word."""
    store, notes = tmp_path / "store", tmp_path / "notes"
    with driver(store, notes, 1) as process:
        until(lambda: noted(notes, {}), "it is at work")
        time.sleep(0.2)
        process.send_signal(getattr(signal, number))
        process.wait(PATIENCE_S)
        until(lambda: not session(process.pid), "its children are gone by themselves")
    check_kept(store, noted(notes, {}), unnoted=1)


def test_an_owner_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    store, notes = tmp_path / "store", tmp_path / "notes"
    with driver(store, notes, 1) as process:
        until(lambda: noted(notes, {}), "it is at work")
        os.killpg(process.pid, signal.SIGSTOP)
        kept = verify_store(store).pages
        time.sleep(0.2)
        assert verify_store(store).pages == kept
        os.killpg(process.pid, signal.SIGCONT)
        until(lambda: verify_store(store).pages > kept, "it goes on")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
        until(lambda: not session(process.pid), "its children are gone")
    check_kept(store, noted(notes, {}), unnoted=1)


def test_a_closing_terminal_ends_all_of_them_and_costs_nothing(tmp_path: Path) -> None:
    """It sends SIGHUP to the whole group, children among them."""
    store, notes = tmp_path / "store", tmp_path / "notes"
    with driver(store, notes, 2) as process:
        until(lambda: noted(notes, {}), "it is at work")
        os.killpg(process.pid, signal.SIGHUP)
        process.wait(PATIENCE_S)
        until(lambda: not session(process.pid), "its children are gone")
    check_kept(store, noted(notes, {}), unnoted=1)
