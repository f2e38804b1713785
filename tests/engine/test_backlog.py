"""When the coordinator is woken, and when callers wait or are refused."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mos_pipeline.engine.intake import Rouse
from mos_pipeline.errors import BackpressureError, ClosedError
from tests.engine.desk import PATIENCE_S, desk, texts


def test_the_coordinator_is_woken_for_what_it_asked_for_and_once(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        for _ in range(9):
            d.add()
        assert d.wakes == 1  # for the first, and it has not looked yet
        d.intake.rouse = Rouse.FULL_RING
        for _ in range(8):
            d.add()
        assert d.wakes == 1
        for _ in range(10):
            d.add()  # the first fills the ring, and so does the last
        assert d.wakes == 2
        d.intake.rouse = Rouse.ANY_PAGE
        d.add()
        assert d.wakes == 3


def test_the_coordinator_is_woken_for_the_next_journal_whatever_it_asked_for(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        d.intake.rouse = Rouse.NEVER
        for _ in range(3):
            before, number = d.wakes, len(d.made)
            while len(d.made) == number:  # until this one is full, too
                d.add("x" * 1000)
            assert d.wakes == before + (number > 0)
        d.intake.provide_spare()
        before = d.wakes
        while d.intake.journal is not d.made[-1]:
            d.add("x" * 1000)
        assert d.wakes == before  # there was one


def test_above_the_mark_pages_are_refused_under_policy_raise(tmp_path: Path) -> None:
    with desk(tmp_path, max_bytes=1000, policy="raise") as d:
        d.add("x" * 900)
        d.add("x" * 900)  # below the mark when it came
        backlog = d.intake.backlog_bytes
        with pytest.raises(BackpressureError, match="1000 bytes"):
            d.add("too much")
        d.intake.worked_off(backlog - 1000)
        with pytest.raises(BackpressureError):
            d.add("at the mark is too much, too")
        d.intake.worked_off(1)
        d.add("fits again")
        d.intake.add_backlog(2000)
        with pytest.raises(BackpressureError):
            d.add("too much")
        assert d.intake.next_seq == 3


def test_above_the_mark_callers_wait_until_there_is_room(tmp_path: Path) -> None:
    with desk(tmp_path, max_bytes=1000, timeout_s=10 * PATIENCE_S) as d:
        d.add("x" * 1000)
        threads = [threading.Thread(target=d.add, args=(f"{i}",), daemon=True) for i in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        d.intake.worked_off(1)  # not enough
        time.sleep(0.1)
        assert all(thread.is_alive() for thread in threads)
        assert d.intake.next_seq == 1
        d.intake.worked_off(500)
        for thread in threads:
            thread.join(PATIENCE_S)
        assert d.intake.next_seq == 5


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    with desk(tmp_path, max_bytes=10, timeout_s=0.05) as d:
        d.add("x" * 1000)
        with pytest.raises(BackpressureError, match=r"0\.05 s"):
            d.add()


def test_after_the_close_nothing_is_accepted_and_nobody_waits(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def wait() -> None:
        try:
            d.add("waits")
        except ClosedError as error:
            errors.append(error)

    with desk(tmp_path, max_bytes=10, timeout_s=10 * PATIENCE_S) as d:
        d.add("x" * 1000)
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        time.sleep(0.1)
        d.intake.close()
        thread.join(PATIENCE_S)
        assert len(errors) == 1
        d.intake.worked_off(d.intake.backlog_bytes)
        with pytest.raises(ClosedError):
            d.add()
        d.intake.provide_spare()
        assert len(d.made) == 1
    assert len(texts(tmp_path)) == 1
