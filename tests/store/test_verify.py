from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mos_pipeline.errors import StoreError
from mos_pipeline.messages import encode, encode_tombstone
from mos_pipeline.store.codec import HEADER_BYTES, FrameKind, encode_frame, pack_pages
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.heads import heads_of
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.recovery import open_store
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.verify import VerifyReport, verify_store
from tests.store.common import CONFIG, flip, packed, pages, record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three segments of a PAGES frame of 4 pages and a BATCH frame each, and pages 10 to 13 in a journal."""
    root = tmp_path / "store"
    with open_store(root, CONFIG) as store:
        writer = SegmentWriter(store.folder, 200, 3)
        for first in (0, 4, 8):
            writer.append(FrameKind.PAGES, pages(first, 4))
            writer.append(FrameKind.BATCH, encode({"number": first}))
        writer.close()
        assert len(writer.manifest.segments) >= 3
        journal = store.new_journal()
        for seq in range(10, 14):
            journal.append(seq, record(seq))
    return root


def write(root: Path, kind: FrameKind, body: bytes) -> tuple[Path, int]:
    folder = StoreFolder(root)
    writer = SegmentWriter(folder, 1 << 20, 3)
    number, offset = writer.append(kind, body)
    writer.close()
    return folder.segment(number), offset


def problems(root: Path) -> list[tuple[str, int]]:
    """File and offset of each problem but that pages are missing, which damage brings with it."""
    report = verify_store(root)
    assert report.ok == (not report.problems)
    return [(finding.path.name, finding.offset) for finding in report.problems if "missing;" not in finding.reason]


def reasons(report: VerifyReport) -> str:
    return "\n".join(finding.reason for finding in report.problems)


def test_sound_store(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    report = verify_store(root)
    assert report.ok
    assert (report.problems, report.notes, report.owner) == ([], [], None)
    assert (report.pages, report.repeated) == (14, 2)
    assert report.frames == {"pages": 3, "batch": 3}
    assert report.bytes["journals"] == CONFIG.journal_bytes
    assert report.bytes.total() == sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_nothing_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreError, match="there is no store here"):
            verify_store(path)


def test_every_flipped_byte_of_a_segment_is_found(root: Path) -> None:
    path = StoreFolder(root).segment(2)
    for offset in range(path.stat().st_size):
        flip(path, offset)
        assert [name for name, _ in problems(root)] == [path.name]
        flip(path, offset)
    assert problems(root) == []


def test_damaged_frame_and_the_pages_that_it_costs(root: Path) -> None:
    path = StoreFolder(root).segment(2)
    flip(path, HEADER_BYTES + 2)
    report = verify_store(root)
    assert (report.problems[0].path, report.problems[0].offset) == (path, 0)
    assert "pages 4 to 7 are missing; restore a backup" in reasons(report)
    assert report.pages == 10


def test_truncated_earlier_segment(root: Path) -> None:
    path = StoreFolder(root).segment(1)
    os.truncate(path, 30)
    assert problems(root) == [(path.name, 0)]


def test_missing_segment(root: Path) -> None:
    path = StoreFolder(root).segment(1)
    path.unlink()
    assert problems(root) == [(path.name, 0)]


def test_the_first_pages_are_missed_as_others_are(root: Path) -> None:
    """A segment that has lost all its frames looks like one that has none yet."""
    StoreFolder(root).segment(1).write_bytes(b"")
    report = verify_store(root)
    assert "pages 0 to 3 are missing; restore a backup" in reasons(report)


@pytest.mark.parametrize("name", ["journal", "segments", "aside", "pins"])
def test_a_file_in_the_place_of_a_folder(root: Path, name: str) -> None:
    shutil.rmtree(root / name)
    (root / name).write_text("x")
    assert (name, 0) in problems(root)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_something_else_in_the_place_of_a_segment(root: Path, make: Callable[[Path], None]) -> None:
    path = StoreFolder(root).segment(2)
    path.unlink()
    make(path)
    assert problems(root) == [(path.name, 0)]


def test_a_folder_in_the_place_of_the_lock(root: Path) -> None:
    lock = StoreFolder(root).lock
    lock.unlink(missing_ok=True)
    lock.mkdir()
    assert problems(root) == [("LOCK", 0)]


def test_missing_manifest(root: Path) -> None:
    (root / "MANIFEST").unlink()
    assert problems(root) == [("MANIFEST", 0)]


def test_junk_manifest(root: Path) -> None:
    (root / "MANIFEST").write_text("junk")
    assert problems(root) == [("MANIFEST", 0)]


NOTHING = [b""]  # a record that is gone: its heads say nothing of it


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        (FrameKind.BATCH, b"\xc1", "not valid msgpack"),
        (FrameKind.VECTORS, encode(["x"]) + b"more", "not valid msgpack"),
        (FrameKind.ASIDE, encode(5), "expected a list or map, found int"),
        (FrameKind.PAGES, encode({}), "not a list of pages"),
        (
            FrameKind.PAGES,
            pack_pages(12, heads_of(3 * NOTHING), [record(12), b"\xc1", record(14)]),
            "page 13: not valid msgpack",
        ),
    ],
)
def test_body_that_does_not_decode(root: Path, kind: FrameKind, body: bytes, reason: str) -> None:
    path, offset = write(root, kind, body)
    report = verify_store(root)
    assert [(finding.path, finding.offset) for finding in report.problems] == [(path, offset)]
    assert reason in reasons(report)


def test_hole_between_pages(root: Path) -> None:
    write(root, FrameKind.PAGES, pages(15, 2))
    assert reasons(verify_store(root)) == "page 14 is missing; restore a backup"


def test_repeated_pages_are_counted_and_no_problem(root: Path) -> None:
    write(root, FrameKind.PAGES, pages(0, 4))
    report = verify_store(root)
    assert (report.ok, report.pages, report.repeated) == (True, 14, 6)


def test_damaged_record_of_a_journal(root: Path) -> None:
    path = StoreFolder(root).journal(1)
    length = 16 + len(record(10))
    flip(path, length + 3)
    assert problems(root) == [(path.name, length)]


def test_undecodable_record_of_a_journal(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        journal = store.new_journal()
        journal.append(14, b"\xc1")
    assert problems(root) == [(journal.path.name, 0)]


def test_torn_tails_are_notes_unless_the_owner_is_alive(root: Path) -> None:
    folder = StoreFolder(root)
    last = max(folder.segments.iterdir())
    size = last.stat().st_size
    with last.open("ab") as file:
        file.write(encode_frame(FrameKind.BATCH, b"body", 3)[:-1])
    end = 4 * (16 + len(record(10)))
    flip(folder.journal(1), end)
    report = verify_store(root)
    assert report.ok
    assert [(note.path, note.offset) for note in report.notes] == [(folder.journal(1), end), (last, size)]
    assert all("torn tail" in note.reason for note in report.notes)
    with open_store(root, CONFIG):
        report = verify_store(root)
        assert (report.ok, report.notes, report.owner) == (True, [], os.getpid())


def test_segment_that_the_manifest_does_not_name_is_a_note(root: Path) -> None:
    path = StoreFolder(root).segment(99)
    path.write_bytes(b"x")
    report = verify_store(root)
    assert report.ok
    assert [note.path for note in report.notes] == [path]


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_pages_that_are_accepted_during_the_check_leave_no_hole_in_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    with open_store(root, CONFIG) as store:
        older, newer = store.new_journal(), store.new_journal()
        real, opened = Journal.open, list[Path]()

        def accept_between_two_looks(path: Path) -> Journal:
            opened.append(path)
            if len(opened) == moment:
                older.append(14, record(14))
                newer.append(15, record(15))
            return real(path)

        monkeypatch.setattr(Journal, "open", accept_between_two_looks)
        assert verify_store(root).problems == []
        assert len(opened) == 3


def test_store_in_use_is_sound_at_every_moment(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        writer = SegmentWriter(store.folder, 500, 3)
        journals = [*store.journals(), store.new_journal()]
        for seq in range(14, 40):
            journals[-1].append(seq, record(seq))
            if seq % 5 == 4:
                writer.append(FrameKind.PAGES, pages(10, seq - 9))
                store.retire(journals.pop(0))
                journals.append(store.new_journal())
            report = verify_store(root)
            assert (report.problems, report.notes, report.pages) == ([], [], seq + 1)
        writer.close()


def test_forgotten_pages_are_counted_and_no_problem(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        journal = store.new_journal()
        journal.append(14, encode_tombstone([0, 1, 5]))
        journal.append(15, record(15))
        journal.append(16, encode_tombstone([5, 15]))
    write(root, FrameKind.PAGES, packed(4, [record(4), b"", b"", record(7)]))  # 6: a tombstone named it once
    write(root, FrameKind.PAGES, packed(14, [encode_tombstone([0, 1, 5])]))
    report = verify_store(root)
    assert (report.problems, report.notes) == ([], [])
    assert (report.pages, report.forgotten) == (10, 5)


def test_lost_page_that_was_forgotten_is_not_missing(root: Path) -> None:
    write(root, FrameKind.PAGES, packed(16, [encode_tombstone([14])]))
    assert "page 15 is missing" in reasons(verify_store(root))
    assert "14" not in reasons(verify_store(root))


def test_tombstone_that_can_not_be_read_is_a_problem(root: Path) -> None:
    write(root, FrameKind.PAGES, pack_pages(14, heads_of(NOTHING), [encode(["forget", 7])]))
    assert "page 14: a tombstone that can't be read" in reasons(verify_store(root))
