"""Workers that hang, are stopped, or say half of what they should: replaced, and nobody waits for them."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from mos_pipeline.config import Runtime
from tests.runtime.office import PATIENCE_S, Office, toy


def test_silent_workers_are_replaced_and_their_work_is_done(tmp_path: Path) -> None:
    names = ("hangs in work", "hangs before it begins", "stopped in work", "stopped while idle")
    with Office(*(toy(name=name) for name in names), work_timeout_s=1.0, max_attempts=10) as office:
        for name in names:
            office.wait("ready", name)
        office.signal(signal.SIGSTOP, names[3])
        units = [
            office.submit("hang", str(tmp_path / "work"), role=names[0]),
            office.submit("hang in accept", str(tmp_path / "accept"), role=names[1]),
            office.submit("die once", ["SIGSTOP", str(tmp_path / "stopped")], role=names[2]),
            *(office.submit("echo", role=name) for name in names),
        ]
        assert {office.outcome(unit).fate for unit in units} == {"done"}
        # On a machine that is very busy one that did nothing wrong may be late, too.
        assert all(office.supervisor.state(name).restarts >= 1 for name in names)


def test_a_unit_that_always_hangs_is_told_apart(tmp_path: Path) -> None:
    with Office(work_timeout_s=0.7, max_attempts=2) as office:
        unit, after = office.submit("sleep", PATIENCE_S), office.submit("echo")
        assert office.outcome(unit)[1:] == ("killed", None, "signal 9")
        assert office.outcome(after).fate == "done"


def test_silence_counts_from_the_moment_when_there_is_work() -> None:
    office = Office()
    pool, config = office.supervisor._pools["toy"], Runtime(work_timeout_s=10.0, start_timeout_s=20.0)
    office.supervisor._start_worker(pool)
    (worker,) = pool.workers
    now = worker.born
    assert pool.overdue(config, now + 20.0) == []
    assert pool.overdue(config, now + 20.1) == [worker]  # not ready yet
    worker.ready, worker.heard = True, now - 1000.0
    assert pool.overdue(config, now + 1000.0) == []  # nothing to do
    office.submit("sleep", 0)
    assert worker.heard >= now
    assert pool.overdue(config, worker.heard + 10.0) == []
    assert pool.overdue(config, worker.heard + 10.1) == [worker]
    with office:
        office.close()


def test_a_worker_that_never_gets_ready_is_replaced_and_given_up() -> None:
    with Office(toy("hang"), start_timeout_s=0.5, max_restarts=1) as office:
        assert office.outcome(office.submit("echo")).fate == "down"


def test_half_a_report_holds_nobody_up(tmp_path: Path) -> None:
    """Its writer is killed, or stopped, in the midst of it; another pool goes on meanwhile."""
    with Office(toy(), toy(name="other"), work_timeout_s=1.0) as office:
        for how, size in (("SIGKILL", 100), ("SIGSTOP", 100_000)):  # the latter is larger than the pipe
            marker = tmp_path / how
            unit = office.submit("half a report", [how, size, str(marker)])
            while not marker.exists():
                time.sleep(0.01)
            assert {office.ask("echo", i, role="other").fate for i in range(20)} == {"done"}
            assert office.outcome(unit).result == [how, size, str(marker)]
