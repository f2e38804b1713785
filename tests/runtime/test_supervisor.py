"""Work in real processes: done once, whatever becomes of who does it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from mos_pipeline.errors import WorkerError
from mos_pipeline.runtime.channel import Channel
from mos_pipeline.runtime.start import ChildProcess
from tests.runtime.office import PATIENCE_S, Office, gone, toy
from tests.runtime.stages import WAYS_TO_DIE


def test_results_come_back_once_in_order_and_in_whole() -> None:
    payloads = [None, 1, -(1 << 63), 1.5, "ä\ud800", b"\x00\xff", [1, [2, {"k": None}]], "x" * 300_000]
    with Office() as office:
        units = [office.submit("echo", payload) for payload in payloads]
        assert [office.outcome(unit)[1:] for unit in units] == [("done", payload, "") for payload in payloads]
        state = office.wait("ready")
        assert (state.workers, state.waiting, state.restarts, state.error) == (1, 0, 0, None)
        assert (state.info["pid"],) == state.pids
        assert office.changes == ["toy"]
    assert office.order == units


def test_urgent_work_of_one_turn_is_done_before_the_rest_and_in_its_order() -> None:
    with Office() as office:
        office.wait("ready")
        make = office.supervisor.unit
        units = [make("echo", i, urgent=i % 2 == 1) for i in range(8)]
        office.supervisor.submit("toy", units)
        for unit in units:
            office.outcome(unit.unit_id)
    ids = [unit.unit_id for unit in units]
    assert office.order == ids[1::2] + ids[::2]


def test_refused_work_harms_nobody() -> None:
    with Office() as office:
        assert office.ask("refuse", "this") == (1, "refused", None, "can't do this")
        assert office.ask("echo", "next").fate == "done"
        assert office.wait("ready").restarts == 0


def test_after_each_kind_of_death_the_work_is_given_out_again(tmp_path: Path) -> None:
    with Office(*(toy(name=how) for how in WAYS_TO_DIE)) as office:
        pids = {how: office.wait("ready", how).pids for how in WAYS_TO_DIE}
        units = [office.submit("die once", [how, str(tmp_path / how)], role=how) for how in WAYS_TO_DIE]
        units += [office.submit("echo", i, role=how) for how in WAYS_TO_DIE for i in range(3)]
        assert {office.outcome(unit).fate for unit in units} == {"done"}
        for how in WAYS_TO_DIE:
            state = office.wait("ready", how)
            assert (state.restarts, state.waiting) == (1, 0), how
            assert state.pids != pids[how]


def test_what_was_done_before_the_death_counts_and_is_not_done_again(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with Office(toy("well", str(note))) as office:
        units = [office.submit("echo") for _ in range(3)] + [office.submit("die after done")]
        units += [office.submit("echo") for _ in range(3)]
        assert {office.outcome(unit).fate for unit in units} == {"done"}
        assert office.supervisor.state("toy").restarts == 1
    done = [int(line) for line in note.read_text().split() if line.isdigit()]
    assert sorted(done) == sorted(units)


def test_a_unit_that_kills_three_workers_is_told_apart_and_the_others_are_done() -> None:
    with Office(toy(workers=2)) as office:
        units = {office.submit("die" if i == 5 else "echo", "SIGKILL"): i for i in range(20)}
        fates = {i: office.outcome(unit) for unit, i in units.items()}
        assert fates.pop(5)[1:] == ("killed", None, "signal 9")
        assert {outcome.fate for outcome in fates.values()} == {"done"}
        assert office.supervisor.state("toy").restarts == 3
        assert office.ask("echo").fate == "done"
    assert all(len(outcomes) == 1 for outcomes in office.outcomes.values())


def test_several_poisonous_units_take_no_other_work_with_them() -> None:
    with Office(max_attempts=2, max_restarts=4) as office:
        poison = [office.submit("die", how) for how in ("SIGSEGV", "exit 1")]
        innocent = [office.submit("echo", i) for i in range(5)]
        assert [office.outcome(unit).error for unit in poison] == ["signal 11", "exit code 1"]
        assert {office.outcome(unit).fate for unit in innocent} == {"done"}


def test_work_that_can_not_be_to_blame_is_given_out_for_ever(tmp_path: Path) -> None:
    with Office(toy(blames=False), max_attempts=1) as office:
        units = [office.submit("die once", ["SIGKILL", str(tmp_path / str(i))]) for i in range(3)]
        assert [office.outcome(unit).fate for unit in units] == ["done"] * 3


def test_urgent_work_overtakes_what_waits() -> None:
    with Office(toy(credit=1)) as office:
        first = office.submit("sleep", 0.5)
        slow = [office.submit("echo") for _ in range(3)]
        urgent = office.submit("echo", urgent=True)
        office.outcome(slow[-1])
        assert office.order.index(urgent) <= 1
        assert office.order[-3:] == slow
        assert first in office.order


def test_a_refusal_to_get_ready_fails_the_pool_and_answers_everyone() -> None:
    with Office(toy("refuse")) as office:
        units = [office.submit("echo") for _ in range(3)]
        assert {office.outcome(unit)[1:] for unit in units} == {
            ("down", None, "ModelNotFoundError: there is no such toy")
        }
        state = office.wait("failed")
        assert state.error == "ModelNotFoundError: there is no such toy"
        assert state.restarts == 0
        assert office.changes == ["toy"]
        with pytest.raises(WorkerError, match="no such toy"):
            office.submit("echo")


@pytest.mark.parametrize("how", ["SIGKILL", "raise"])
def test_a_worker_that_dies_at_every_start_is_given_up(how: str, caplog: pytest.LogCaptureFixture) -> None:
    with Office(toy(how), max_restarts=2) as office:
        unit = office.submit("echo")
        assert office.outcome(unit).fate == "down"
        state = office.wait("failed")
        assert state.restarts == 2
        assert state.error is not None and "again and again" in state.error
        with pytest.raises(WorkerError, match="again and again"):
            office.submit("echo")
    if how == "raise":
        assert "the toy can't be built" in caplog.text  # the reason is in the log, not only on stderr


def test_restarts_wait_longer_with_each_death_in_a_row_up_to_a_limit() -> None:
    office = Office(max_restarts=8, restart_backoff_s=0.1)
    pool = office.supervisor._pools["toy"]
    for pause in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        before = time.monotonic()
        office.supervisor._count_death(pool, "died")
        assert before + pause <= pool.start_at[-1] <= time.monotonic() + pause
    with office:
        assert office.ask("echo").fate == "done"
        assert pool.deaths_in_a_row == 0  # work was done


def test_what_a_worker_said_last_counts_though_only_its_death_was_noticed() -> None:
    office = Office()
    pool = office.supervisor._pools["toy"]
    office.supervisor._start_worker(pool)
    (worker,) = pool.workers
    worker.ready = True
    unit = office.submit("die after done", "result")
    assert wait([worker.process.sentinel], PATIENCE_S)
    office.supervisor._bury(pool, worker)
    assert office.outcome(unit).result == "result"
    with office:
        office.close()


def test_a_worker_that_can_not_be_started_fails_the_pool_or_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ChildProcess.start
    errors: list[Exception] = [OSError(11, "no more processes"), OSError(24, "too many files")]

    def start(process: ChildProcess) -> None:
        if errors:
            raise errors.pop()
        real(process)

    monkeypatch.setattr(ChildProcess, "start", start)
    with Office() as office:
        assert office.ask("echo").fate == "done"
        assert office.supervisor.state("toy").restarts == 2
    errors.append(AssertionError("daemonic processes are not allowed to have children"))
    with Office() as office:
        try:
            assert office.outcome(office.submit("echo")).fate == "down"
        except WorkerError as error:  # it had failed before it was given work
            assert "daemonic" in str(error)
        assert "daemonic" in str(office.wait("failed").error)


def test_one_of_two_workers_refuses_while_the_other_works(tmp_path: Path) -> None:
    """The pool's work is answered; what the other worker still says is late, and harms nobody."""
    marker = tmp_path / "first"
    with Office(toy(name="other"), toy("well", workers=2)) as office:
        office.wait("ready")
        pool = office.supervisor._pools["toy"]
        units = [office.submit("sleep", 0.2) for _ in range(4)]
        worker = pool.workers[0]
        office.supervisor._take(pool, worker, ["refused", "ModelNotFoundError", "gone"])
        office.supervisor._take(pool, worker, ["started", units])
        office.supervisor._take(pool, worker, ["done", units[0], None])
        assert {office.outcome(unit).fate for unit in units} == {"down"}
        assert office.ask("hang", str(_touched(marker)), role="other").fate == "done"
        assert gone(office.pids())


def _touched(path: Path) -> Path:
    path.touch()
    return path


def test_log_records_arrive_under_their_names(caplog: pytest.LogCaptureFixture) -> None:
    said = [
        ["mos_pipeline.stages.toy", logging.INFO, "at your service"],
        ["mos_pipeline.stages.toy.part", logging.ERROR, "100 %s of it"],
        ["mos_pipeline.stages.toy", logging.DEBUG, "too fine"],
    ]
    with caplog.at_level(logging.DEBUG, "mos_pipeline"), Office() as office:
        office.ask("log", said)
    records = [r for r in caplog.records if "toy" in r.name]
    assert [[r.name, r.levelno, r.getMessage()] for r in records] == said[:2]
    assert {vars(r)["role"] for r in records} == {"toy"}


def test_an_unexpected_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with Office(max_attempts=1) as office:
        assert office.ask("die", "exception").fate == "killed"
    (record,) = [r for r in caplog.records if "unexpected error" in r.getMessage()]
    assert record.name == "mos_pipeline"
    assert "RuntimeError: the toy broke" in record.getMessage()


def test_many_threads_submit_while_workers_die(tmp_path: Path) -> None:
    with Office(toy(workers=2), max_restarts=1000, max_attempts=1000) as office:
        office.wait("ready")
        units: list[int] = []
        stop = threading.Event()

        def add(thread: int) -> None:
            for i in range(100):
                if i == 25:
                    units.append(office.submit("die once", ["SIGKILL", str(tmp_path / f"{thread}-{i}")]))
                units.append(office.submit("echo", [thread, i]))
                office.supervisor.state("toy")

        def kill() -> None:
            while not stop.wait(0.3):
                for pid in office.pids()[:1]:
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        threads = [threading.Thread(target=add, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.5)
        stop.set()
        killer.join()
        assert len(units) == 4 * 101
        assert {office.outcome(unit).fate for unit in units} == {"done"}
        assert office.supervisor.state("toy").waiting == 0


def test_callers_may_come_while_a_dead_worker_is_buried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever submits, or looks, in that moment meets no closed queue and no closed process."""
    real, closing, go_on = Channel.close, threading.Event(), threading.Event()

    def close(channel: Channel) -> None:
        real(channel)
        closing.set()
        go_on.wait(PATIENCE_S)

    monkeypatch.setattr(Channel, "close", close)
    with Office() as office:
        units = [office.submit("die once", ["SIGKILL", str(tmp_path / "died")])]
        assert closing.wait(PATIENCE_S)
        units.append(office.submit("echo"))
        assert office.supervisor.state("toy").waiting == 2
        go_on.set()
        assert {office.outcome(unit).fate for unit in units} == {"done"}


def test_a_receiver_that_fails_does_not_stop_the_others_work(caplog: pytest.LogCaptureFixture) -> None:
    office = Office()
    office.broken_callback = True
    with office:
        assert [office.ask("echo", i).result for i in range(3)] == [0, 1, 2]
    assert caplog.text.count("the callback broke") >= 3


def test_deaths_are_noticed_where_the_caller_ignores_them(tmp_path: Path) -> None:
    """With SIGCHLD ignored the kernel reaps the children, and nobody is told how they ended."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Office() as office:
            assert office.ask("die once", ["SIGKILL", str(tmp_path / "died")]).fate == "done"
            pids = office.pids()
        assert gone(pids)
    finally:
        signal.signal(signal.SIGCHLD, before)
