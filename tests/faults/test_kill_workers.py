"""A worker is killed again and again under load: it is restarted in place; nothing is lost, doubled or reordered."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.errors import WorkerError
from tests.faults.common import (
    PATIENCE_S,
    Load,
    check_consistent,
    check_found,
    check_order,
    check_reopened,
    nothing_left,
    until,
)
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

KILLS = 20
EAGER = {"store__flush_interval_s": 0.02, "runtime__restart_backoff_s": 0.001}


def kill_one(memory: MemoryPipeline, role: str, rng: random.Random) -> None:
    """Kill one worker of ``role``: most times in the midst of work, now and then while it starts or rests."""
    supervisor = memory._engine.supervisor
    assert supervisor is not None
    until(lambda: supervisor.state(role).pids, f"a {role} is there")
    if rng.random() < 0.8:
        until(lambda: supervisor.state(role).state == "ready", f"the {role} is ready")
        until(lambda: supervisor.state(role).waiting, f"the {role} has work", pause_s=0.0002)
    time.sleep(rng.random() ** 3 * 0.1)
    state = supervisor.state(role)
    if state.pids:
        os.kill(rng.choice(state.pids), signal.SIGKILL)
        until(lambda: supervisor.state(role).restarts > state.restarts, "its death was noticed")


def kill_all(memory: MemoryPipeline, rng: random.Random) -> None:
    """Kill every worker at once."""
    workers = memory.stats().workers.values()
    for pid in [pid for worker in workers for pid in worker.pids]:
        os.kill(pid, signal.SIGKILL)
    time.sleep(rng.random())


@pytest.mark.parametrize("role", ["embedder", "llm", "writer"])
def test_a_killed_worker_costs_nothing(tmp_path: Path, role: str) -> None:
    rng = random.Random(f"kill {role}")
    with nothing_left(), open_fake(tmp_path / "store", llm__processes=2, **EAGER) as memory:
        until(lambda: memory.stats().workers[role].state == "ready", f"the {role} is ready")
        with Load(memory, seed=rng.randrange(1000)) as load:
            for _ in range(KILLS):
                kill_one(memory, role, rng)
        memory.wait_idle(PATIENCE_S)
        stats = memory.stats()
        assert stats.workers[role].restarts >= KILLS
        assert not stats.set_aside
        check_order(memory, load.accepted)
        check_consistent(memory)
    check_reopened(tmp_path / "store", load.accepted)


def test_workers_killed_all_at_once_cost_nothing(tmp_path: Path) -> None:
    rng = random.Random("kill all")
    with nothing_left(), open_fake(tmp_path / "store", llm__processes=2, **EAGER) as memory:
        with Load(memory, seed=1) as load:
            for _ in range(10):
                kill_all(memory, rng)
        memory.wait_idle(PATIENCE_S)
        assert not memory.stats().set_aside
        check_order(memory, load.accepted)
        check_consistent(memory)
    check_reopened(tmp_path / "store", load.accepted)


@pytest.mark.parametrize("role", ["embedder", "llm", "writer"])
def test_a_worker_that_stays_down_costs_nothing_but_its_work(tmp_path: Path, role: str) -> None:
    settings = {"runtime__max_restarts": 2, "llm__processes": 1, **EAGER}
    with nothing_left(), open_fake(tmp_path / "store", **settings) as memory:
        until(lambda: memory.stats().workers[role].state == "ready", f"the {role} is ready")
        with Load(memory, seed=2) as load:
            until(lambda: memory.stats().vectors, "it is at work")
            while memory.stats().workers[role].state != "failed":
                for pid in memory.stats().workers[role].pids:
                    with suppress(ProcessLookupError):  # it died between the look and the blow
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)
            time.sleep(0.3)
        with pytest.raises(WorkerError, match=f"the {role} died again and again"):
            memory.wait_idle(PATIENCE_S)
        check_order(memory, load.accepted)
        check_found(memory, all_pages(memory)[::50], dense=False)
        assert memory.verify().ok
    check_reopened(tmp_path / "store", load.accepted)
