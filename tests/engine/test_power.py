"""What survives a power cut: with durability power, every page that was confirmed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mos_pipeline.errors import StoreError
from mos_pipeline.store import recovery
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal
from tests.engine.desk import PATIENCE_S, Desk, desk, record, texts


class SlowDisk(Journal):
    """Knows how far it was flushed; a flush takes a moment, and waits for ``gate`` where one is set."""

    flushed_to = 0
    flushes = 0
    fail = False
    gate: threading.Event | None = None

    def sync(self) -> None:
        end, fail = self.end, SlowDisk.fail
        if SlowDisk.gate is not None:
            assert SlowDisk.gate.wait(PATIENCE_S)
        time.sleep(0.001)
        if fail:
            raise StoreError("the disk failed")
        super().sync()
        self.flushed_to = max(self.flushed_to, end)
        SlowDisk.flushes += 1


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> type[SlowDisk]:
    monkeypatch.setattr(recovery, "Journal", SlowDisk)
    for name, value in (("flushes", 0), ("fail", False), ("gate", None)):
        monkeypatch.setattr(SlowDisk, name, value)
    return SlowDisk


def unflushed(d: Desk, seqs: range) -> list[int]:
    """Which of these pages would not survive a power cut."""
    items = list(d.intake.accepted)
    ends = {seq: items[seq].offset + items[seq].size + RECORD_OVERHEAD for seq in seqs}
    return [seq for seq, end in ends.items() if getattr(items[seq].journal, "flushed_to", 0) < end]


def test_with_durability_power_a_page_is_flushed_before_add_returns(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    unsafe: list[int] = []

    def add(d: Desk, thread: int) -> None:
        for i in range(25):
            seq = d.state.ids.resolve(d.add("x" * 1000, page_id=f"{thread}-{i}"))
            assert seq is not None
            unsafe.extend(unflushed(d, range(seq + 1)))

    with desk(tmp_path, power=True) as d:
        threads = [threading.Thread(target=add, args=(d, i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(d.made) > 2
        assert not unsafe
        assert slow_disk.flushes < 200  # one flush for many
        assert len(d.intake.accepted) == 200


def test_with_durability_power_a_page_that_is_known_is_flushed_too(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    with desk(tmp_path, power=True) as d:
        slow_disk.gate = threading.Event()
        threads = [threading.Thread(target=d.intake.add, args=(record(page_id="mine"),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        threads[0].join(0.2)
        assert all(thread.is_alive() for thread in threads)
        slow_disk.gate.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert d.intake.next_seq == 1
        assert unflushed(d, range(1)) == []


def test_with_durability_process_nothing_is_flushed_until_someone_asks(
    tmp_path: Path, slow_disk: type[SlowDisk]
) -> None:
    with desk(tmp_path) as d:
        for _ in range(10):
            d.add("x" * 20_000)
        assert slow_disk.flushes == 0
        d.intake.sync()
        assert unflushed(d, range(10)) == []  # those in full journals as well
        flushes = slow_disk.flushes
        d.intake.sync()
        assert slow_disk.flushes == flushes


def test_a_journal_that_was_closed_meanwhile_needs_no_flush(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    """It is closed once its pages are in a segment, and flushed there."""
    with desk(tmp_path) as d:
        for _ in range(10):
            d.add("x" * 20_000)
        d.store.retire(d.made[0])
        d.intake.sync()
        assert unflushed(d, range(3, 10)) == []


def test_a_page_that_could_not_be_flushed_is_not_confirmed(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    with desk(tmp_path, power=True) as d:
        d.add("x" * 40_000)
        slow_disk.fail = True
        for text in ("stays in its journal", "y" * 40_000):
            with pytest.raises(StoreError, match="the disk failed"):
                d.add(text)
        slow_disk.fail = False
        d.add("works again")
        assert unflushed(d, range(4)) == []  # those that failed are flushed with it
    assert len(texts(tmp_path)) == 4


def test_closing_flushes_for_those_who_still_wait(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    with desk(tmp_path, power=True) as d:
        slow_disk.gate = threading.Event()
        caller = threading.Thread(target=d.add)
        caller.start()
        while not d.intake.next_seq:
            time.sleep(0.001)
        closer = threading.Thread(target=d.intake.close)
        closer.start()
        closer.join(0.2)
        assert closer.is_alive()
        slow_disk.gate.set()
        closer.join()
        caller.join()
        assert unflushed(d, range(1)) == []
