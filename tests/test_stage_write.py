from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.errors import ConfigError, StoreError
from mos_pipeline.messages import decode, encode, encode_tombstone
from mos_pipeline.runtime.worker import Report, Stage
from mos_pipeline.stages import write
from mos_pipeline.stages.write import WriteStage
from mos_pipeline.store.codec import HEADER_BYTES, FrameKind, unpack_pages
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segments import FrameAddress, SegmentReader
from tests.store.common import SmallDisk, descriptors_closed, flip, made_folder, record

__all__ = ["descriptors_closed"]


@dataclass
class Reports:
    """What the stage said, as it would come out of the pipe."""

    begun: list[list[int]] = field(default_factory=list)
    results: dict[int, Any] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def started(self, unit_ids: Sequence[int]) -> None:
        self.begun.append(list(unit_ids))

    def piece(self, unit_id: int, piece: Any) -> None:
        raise AssertionError("it answers whole")

    def done(self, unit_id: int, result: Any) -> None:
        assert unit_id not in self.results
        self.results[unit_id] = decode(encode(result))

    def failed(self, unit_id: int, message: str) -> None:
        self.refused[unit_id] = message

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        raise AssertionError("it calls no model")

    def endpoint(self, down_since: float | None) -> None:
        raise AssertionError("it asks no endpoint")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    def __init__(self, folder: StoreFolder) -> None:
        self.folder = folder
        self.clock = Clock()
        self.reports = Reports()
        self.stage = WriteStage(str(folder.root), 1 << 20, 3, clock=self.clock)
        self.journal = Journal.create(folder.journal(1), 1 << 18)

    def journaled(self, *seqs: int, text: str = "hello") -> list[Any]:
        """Append pages to the journal and return the range that they take in it."""
        start = self.journal.end
        for seq in seqs:
            self.journal.append(seq, record(seq, text))
        return [str(self.journal.path), start, self.journal.end]

    def step(self) -> None:
        report: Report = self.reports
        self.stage.step(report)

    def frames(self) -> list[tuple[FrameKind, bytes]]:
        reader = SegmentReader(self.folder)
        found = []
        for number in Manifest.load(self.folder).segments:
            for item in reader.scan(number):
                assert isinstance(item, Frame)
                found.append((item.kind, item.body))
        reader.close()
        return found

    def pages(self) -> list[tuple[int, bytes]]:
        found = [unpack_pages(body) for kind, body in self.frames() if kind == FrameKind.PAGES]
        return [page for first_seq, _, records in found for page in enumerate(records, first_seq)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(made_folder(tmp_path / "store"))
    yield made
    made.stage.close()
    made.journal.close()


def expected(*seqs: int) -> list[tuple[int, bytes]]:
    return [(seq, record(seq)) for seq in seqs]


def fail_with(code: int) -> Any:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_pages_become_frames_of_the_asked_size(bench: Bench) -> None:
    stage: Stage = bench.stage
    assert stage.prepare() == {}
    assert not stage.pending
    stage.accept(1, "pages", [*bench.journaled(*range(10)), 4])
    assert stage.pending
    bench.step()
    assert not stage.pending
    rows = bench.reports.results[1]
    assert [row[2:] for row in rows] == [[0, 4], [4, 4], [8, 2]]
    assert bench.pages() == expected(*range(10))
    reader = SegmentReader(bench.folder)
    kind, body = reader.read_frame(FrameAddress(*rows[1][:2]))
    assert (kind, unpack_pages(body)[0]) == (FrameKind.PAGES, 4)
    reader.close()


def test_only_the_range_is_written(bench: Bench) -> None:
    bench.journaled(0, 1)
    middle = bench.journaled(2, 3)
    bench.journaled(4)
    bench.stage.accept(1, "pages", [*middle, 64])
    bench.step()
    assert bench.pages() == expected(2, 3)


def test_frame_ends_where_the_numbers_jump(bench: Bench) -> None:
    bench.stage.accept(1, "pages", [*bench.journaled(3, 4, 7, 8, 20), 64])
    bench.step()
    assert [row[2:] for row in bench.reports.results[1]] == [[3, 2], [7, 2], [20, 1]]
    assert bench.pages() == expected(3, 4, 7, 8, 20)


def test_tombstone_travels_like_a_page(bench: Bench) -> None:
    stone = encode_tombstone([0, 1])
    bench.journaled(0, 1, 2)
    bench.journal.append(3, stone)
    bench.journaled(4)
    bench.stage.accept(1, "pages", [str(bench.journal.path), 0, bench.journal.end, 64])
    bench.step()
    ((_, body),) = bench.frames()
    first_seq, heads, records = unpack_pages(body)
    assert (first_seq, records) == (0, [record(0), record(1), record(2), stone, record(4)])
    assert heads.forgotten == [0, 1]


def test_frame_of_long_pages_ends_early(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "FRAME_BYTES", 1000)
    bench.stage.accept(1, "pages", [*bench.journaled(*range(6), text="long " * 100), 64])
    bench.step()
    assert [row[2:] for row in bench.reports.results[1]] == [[0, 2], [2, 2], [4, 2]]


def test_derived_frames_and_identity(bench: Bench) -> None:
    bench.stage.accept(1, "frame", [int(FrameKind.BATCH), b"batch", 17])
    bench.stage.accept(2, "identity", {"model": "m", "dimension": 384})
    bench.stage.accept(3, "frame", [int(FrameKind.VECTORS), b"vectors", 18])
    bench.step()
    assert bench.frames() == [(FrameKind.BATCH, b"batch"), (FrameKind.VECTORS, b"vectors")]
    assert bench.reports.results == {1: [1, 0], 2: None, 3: [1, HEADER_BYTES + 5]}
    assert Manifest.load(bench.folder).embedding == {"model": "m", "dimension": 384}
    assert bench.reports.begun == [[1, 2, 3]]


def test_one_fsync_for_all_and_before_any_acknowledgement(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage.accept(0, "frame", [2, b"first", 7])
    bench.step()  # the segment is there now
    acknowledged_at_sync: list[int] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        acknowledged_at_sync.append(len(bench.reports.results))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    for unit_id in range(1, 21):
        bench.stage.accept(unit_id, "pages", [*bench.journaled(unit_id), 64])
    bench.step()
    assert acknowledged_at_sync == [1]
    assert sorted(bench.reports.results) == list(range(21))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("unknown", []),
        ("frame", [99, b"body", 7]),
        ("frame", [2, "text", 7]),
        ("frame", [2, b"body", "7"]),
        ("frame", None),
        ("identity", [1]),
        ("pages", ["a", 0, 1]),
        ("pages", ["a", 0, 1, 0]),
        ("pages", ["/nowhere/1.journal", 0, 1, 64]),
    ],
)
def test_work_that_makes_no_sense_is_refused_and_the_rest_is_done(bench: Bench, kind: str, payload: Any) -> None:
    bench.stage.accept(1, "frame", [2, b"before", 7])
    bench.stage.accept(2, kind, payload)
    bench.stage.accept(3, "frame", [2, b"after", 7])
    bench.step()
    assert not bench.stage.pending
    assert list(bench.reports.refused) == [2]
    assert sorted(bench.reports.results) == [1, 3]
    assert [body for _, body in bench.frames()] == [b"before", b"after"]


def test_damaged_record_costs_itself_and_is_kept(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    pages = bench.journaled(0, 1, 2)
    length = 16 + len(record(0))
    flip(bench.journal.path, length + 20)
    bench.stage.accept(1, "pages", [*pages, 64])
    bench.step()
    assert [row[2:] for row in bench.reports.results[1]] == [[0, 1], [2, 1]]
    assert bench.pages() == expected(0, 2)
    assert f"{length} damaged bytes at offset {length}" in caplog.text
    (kept,) = bench.folder.aside.iterdir()
    assert kept.stat().st_size == length


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("room", range(0, 400, 23))
def test_disk_that_fails_delays_work_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, room: int
) -> None:
    disk = SmallDisk(monkeypatch)
    disk.error = code
    bench.stage.prepare()
    bench.stage.accept(1, "pages", [*bench.journaled(*range(6)), 2])
    bench.stage.accept(2, "frame", [2, os.urandom(100), 7])
    disk.free = room
    bench.step()
    assert bench.stage.pending
    assert bench.reports.refused == {}
    assert [r.levelno for r in caplog.records if r.name == write.__name__] == [logging.ERROR]
    disk.free = float("inf")
    bench.clock.now += write.MAX_PAUSE_S
    bench.step()
    assert not bench.stage.pending
    assert sorted(bench.reports.results) == [1, 2]
    assert [row[2:] for row in bench.reports.results[1]] == [[0, 2], [2, 2], [4, 2]]
    assert bench.pages() == expected(*range(6))
    assert len(bench.frames()) == 4
    assert "can be written again" in caplog.text


def test_units_before_the_one_that_failed_are_acknowledged_and_those_after_it_wait_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stage.accept(0, "frame", [2, b"first", 7])
    bench.step()
    real, calls = os.pwrite, list[int]()

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    for unit_id in (1, 2, 3):
        bench.stage.accept(unit_id, "frame", [2, b"%d" % unit_id, 7])
    bench.step()
    assert sorted(bench.reports.results) == [0, 1]
    bench.clock.now += write.MAX_PAUSE_S
    bench.step()
    assert [body for _, body in bench.frames()] == [b"first", b"1", b"2", b"3"]


def test_failed_fsync_acknowledges_nothing_and_everything_is_written_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stage.accept(1, "pages", [*bench.journaled(*range(6)), 2])
    bench.stage.accept(2, "frame", [2, b"body", 7])
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail_with(errno.EIO))
        bench.step()
    assert bench.reports.results == {}
    assert bench.frames() == []
    bench.clock.now += write.MAX_PAUSE_S
    bench.step()
    assert sorted(bench.reports.results) == [1, 2]
    assert bench.pages() == expected(*range(6))
    assert len(bench.frames()) == 4


def test_pauses_grow_up_to_a_limit_and_are_napped_through(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    disk = SmallDisk(monkeypatch)
    disk.free = 0
    bench.stage.accept(1, "frame", [2, b"body", 7])
    pauses = []
    for attempt in range(1, 10):
        begun = bench.clock.now
        while len(bench.reports.begun) < attempt:
            bench.step()
            bench.clock.now += naps.pop() if naps else 0.0
        pauses.append(round(bench.clock.now - begun, 3))
    assert pauses == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    bench.step()
    assert naps == [write.NAP_S]
    assert bench.stage.pending


def torn_segment(bench: Bench) -> None:
    bench.stage.accept(1, "frame", [2, b"whole", 7])
    bench.step()
    bench.stage.close()
    with bench.folder.segment(1).open("ab") as file:
        file.write(b"MOSF")


def test_torn_tail_is_cut_when_it_gets_ready(bench: Bench) -> None:
    torn_segment(bench)
    bench.stage.prepare()
    assert [body for _, body in bench.frames()] == [b"whole"]


def test_full_disk_at_the_start_is_no_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    torn_segment(bench)
    disk = SmallDisk(monkeypatch)
    disk.free = 0
    bench.stage.prepare()
    bench.stage.accept(2, "frame", [2, b"later", 7])
    bench.clock.now += 1
    bench.step()
    assert bench.stage.pending
    disk.free = float("inf")
    bench.clock.now += 1
    bench.step()
    assert [body for _, body in bench.frames()] == [b"whole", b"later"]


def test_store_that_can_not_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="MANIFEST"):
        WriteStage(str(tmp_path), 1 << 20, 3).prepare()
    with pytest.raises(ConfigError):
        WriteStage(str(made_folder(tmp_path / "store").root), 1 << 20, 99).prepare()


def test_close_on_a_broken_disk_is_quiet(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "fdatasync", fail_with(errno.EIO))
    bench.stage.accept(1, "frame", [2, b"body", 7])
    bench.step()
    bench.stage.close()
    bench.stage.close()
    assert bench.reports.results == {}
    assert "could not be made durable" in caplog.text
