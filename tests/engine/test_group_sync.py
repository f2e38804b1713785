from __future__ import annotations

import threading
import time

import pytest

from mos_pipeline.engine.group_sync import GroupSync
from mos_pipeline.errors import StoreError

PATIENCE_S = 60.0


class Disk:
    """Pages are counted up; a flush takes a moment, in which more come. ``fail`` makes the next one fail."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.accepted = self.safe = -1
        self.flushes = 0
        self.fail = False
        self.at_once = 0
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def accept(self) -> int:
        with self.lock:
            self.accepted += 1
            return self.accepted

    def flush(self) -> int:
        newest, fail = self.accepted, self.fail
        self.fail = False
        self.at_once += 1
        assert self.at_once == 1
        self.begun.set()
        assert self.gate.wait(PATIENCE_S)
        time.sleep(0.002)
        self.at_once -= 1
        self.flushes += 1
        if fail:
            raise StoreError("the disk failed")
        self.safe = newest
        return newest


def start(work: list[threading.Thread]) -> None:
    for thread in work:
        thread.start()


def test_nobody_returns_before_its_page_is_safe_and_many_share_a_flush() -> None:
    disk = Disk()
    sync = GroupSync(disk.flush)
    early: list[int] = []

    def add() -> None:
        for _ in range(20):
            seq = disk.accept()
            sync.wait_for(seq)
            if disk.safe < seq:
                early.append(seq)

    threads = [threading.Thread(target=add) for _ in range(8)]
    start(threads)
    for thread in threads:
        thread.join()
    assert not early
    assert disk.safe == 159
    assert disk.flushes < 160


def test_what_is_safe_already_costs_no_flush() -> None:
    disk = Disk()
    sync = GroupSync(disk.flush)
    sync.wait_for(-1)
    assert disk.flushes == 0
    for _ in range(3):
        disk.accept()
    sync.wait_for(2)
    sync.wait_for(0)
    sync.wait_for(2)
    assert disk.flushes == 1


def test_a_failed_flush_is_told_to_all_who_waited_for_it() -> None:
    """After a failure another flush would succeed, though the pages of the first may be lost."""
    disk = Disk()
    sync = GroupSync(disk.flush)
    failures: list[str] = []

    def add() -> None:
        try:
            sync.wait_for(disk.accept())
        except StoreError as error:
            failures.append(str(error))

    disk.fail = True
    disk.gate.clear()
    threads = [threading.Thread(target=add) for _ in range(5)]
    start(threads)
    assert disk.begun.wait(PATIENCE_S)
    time.sleep(0.2)  # all of them wait by now; one who came later would lead the next flush
    disk.gate.set()
    for thread in threads:
        thread.join()
    assert failures == ["the disk failed"] * 5
    sync.wait_for(disk.accept())
    assert disk.safe == 5


def test_a_leader_that_is_interrupted_leaves_the_lead_to_another() -> None:
    disk = Disk()

    def interrupted() -> int:
        raise KeyboardInterrupt

    sync = GroupSync(lambda: interrupted() if disk.flushes == 0 else disk.flush())
    with pytest.raises(KeyboardInterrupt):
        sync.wait_for(disk.accept())
    disk.flushes = 1
    sync.wait_for(0)
    assert disk.safe == 0
