"""Damaged files: what is damaged is reported and costs only itself; what was derived is made again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from mos_pipeline import MemoryPipeline, Page
from mos_pipeline.errors import StoreDamagedError
from mos_pipeline.store.codec import HEADER_BYTES, FrameKind, unpack_pages
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal
from mos_pipeline.store.verify import verify_store
from tests.faults.common import (
    PATIENCE_S,
    check_consistent,
    check_found,
    fill,
    frames_of,
    nothing_left,
    until,
)
from tests.support import all_pages, open_fake

PAGES = 120
# So small that derived data makes many frames, and batches join each other's sessions.
FRAME = {"store__frame_pages": 4}


class Made(NamedTuple):
    """A store in two states, and its pages: all in the journal, and all worked off with the journals still there."""

    journaled: Path
    worked_off: Path
    pages: list[Page]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Make the store as two kills would leave it: before anything was worked off, and just before the journal went."""
    folder = tmp_path_factory.mktemp("made")
    journaled, worked_off = folder / "journaled", folder / "worked off"
    with open_fake(journaled, workers=False) as memory:
        fill(memory, PAGES)
    shutil.copytree(journaled, worked_off)
    with open_fake(worked_off, **FRAME) as memory:
        memory.wait_idle(PATIENCE_S)
        pages = all_pages(memory)
    shutil.copytree(journaled / "journal", worked_off / "journal", dirs_exist_ok=True)
    return Made(journaled, worked_off, pages)


def copy_of(store: Path, tmp_path: Path, *, journal: bool = True) -> Path:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    if not journal:
        for path in (copy / "journal").iterdir():
            path.unlink()
    return copy


def the_journal(path: Path) -> Path:
    (journal,) = (path / "journal").iterdir()
    return journal


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x41]))


def told(reports: list[str], path: Path, offset: int) -> bool:
    return any(str(path) in report and f"offset {offset}:" in report for report in reports)


def check_all_but(path: Path, made: Made, lost: set[int], *, workers: bool = False) -> list[str]:
    """Open the store twice, add a page each time, and check that all pages but ``lost`` are there and in order.

    With workers everything is worked off at the first opening, and checked. Returns the damage told of at first.
    """
    kept = [page for seq, page in enumerate(made.pages) if seq not in lost]
    damage: list[list[str]] = []
    for opening in range(2):
        with nothing_left(), open_fake(path, workers=workers and not opening, llm__processes=1) as memory:
            assert all_pages(memory) == kept
            assert memory.verify().pages == len(kept)
            for seq in lost:
                assert memory.get(made.pages[seq].page_id) is None
            damage.append(memory.stats().damage)
            added = memory.get(memory.add("ann", f"opening{opening} comes later", "yes"))
            assert added is not None
            kept.append(added)
            check_worked_off(memory, kept, settled=len(kept) - opening if workers else 0)
    return damage[0]


def check_worked_off(memory: MemoryPipeline, pages: list[Page], *, settled: int) -> None:
    """Check that the first ``settled`` of ``pages`` are embedded and all of them can be found."""
    if memory.stats().workers:
        memory.wait_idle(PATIENCE_S)
    else:
        until(lambda: memory.stats().restored, "everything is read")
    assert all_pages(memory) == pages
    check_found(memory, [*pages[:: len(pages) // 5], pages[-1]], dense=bool(memory.stats().workers))
    if settled:
        assert memory.stats().backlog_pages == len(pages) - settled
        check_consistent(memory)


def records(path: Path) -> list[tuple[int, int]]:
    """Return offset and length of every record of a journal."""
    journal = Journal.open(path)
    try:
        return [(record.offset, RECORD_OVERHEAD + len(record.body)) for record in journal.records()]
    finally:
        journal.close()


@pytest.mark.parametrize("garbage", [b"\x01", b"\xff" * 40, os.urandom(300)])
def test_garbage_behind_the_last_record_is_no_page(made: Made, tmp_path: Path, garbage: bytes) -> None:
    path = copy_of(made.journaled, tmp_path)
    journal = the_journal(path)
    offset, length = records(journal)[-1]
    with journal.open("r+b") as file:
        file.seek(offset + length)
        file.write(garbage)
    report = verify_store(path)
    assert report.ok
    assert [(note.path, note.offset) for note in report.notes] == [(journal, offset + length)]
    assert check_all_but(path, made, set()) == []
    assert verify_store(path).ok


@pytest.mark.parametrize("cut", [1, 20, "half", "header"])
def test_a_record_that_was_broken_off_is_cut_away(made: Made, tmp_path: Path, cut: int | str) -> None:
    path = copy_of(made.journaled, tmp_path)
    journal = the_journal(path)
    offset, length = records(journal)[-1]
    left = {"half": length // 2, "header": RECORD_OVERHEAD}.get(str(cut)) or length - int(cut)
    os.truncate(journal, offset + left)
    report = verify_store(path)
    assert report.ok
    assert [(note.path, note.offset) for note in report.notes] == [(journal, offset)]
    lost = made._replace(pages=made.pages[:-1])
    assert check_all_but(path, lost, set()) == []
    assert verify_store(path).ok


@pytest.mark.parametrize("number", [0, 57])
@pytest.mark.parametrize("at", [0, 5, RECORD_OVERHEAD + 3])
def test_a_flipped_byte_in_the_journal_costs_one_page(made: Made, tmp_path: Path, number: int, at: int) -> None:
    path = copy_of(made.journaled, tmp_path)
    journal = the_journal(path)
    offset, _ = records(journal)[number]
    flip(journal, offset + at)
    problems = verify_store(path).problems
    assert (journal, offset) in [(problem.path, problem.offset) for problem in problems]
    damage = check_all_but(path, made, {number})
    assert told(damage, journal, offset)
    if number:
        assert any(f"page {number} is missing" in problem.reason for problem in verify_store(path).problems)


@pytest.mark.parametrize("part", [1, HEADER_BYTES - 1, "half", "all but one", "two frames", "ten frames", "everything"])
def test_a_torn_segment_tail_costs_nothing(made: Made, tmp_path: Path, part: int | str) -> None:
    """The journal goes only when all that replaces it is safe, so a torn segment loses no page."""
    path = copy_of(made.worked_off, tmp_path)
    frames = sorted((frame.offset, file) for kind in FrameKind for file, frame in frames_of(path, kind))
    offset, file = frames[{"two frames": -2, "ten frames": -10, "everything": 0}.get(str(part), -1)]
    size = file.stat().st_size - offset
    left = {"half": size // 2, "all but one": size - 1}.get(str(part), part)
    os.truncate(file, offset + (left if isinstance(left, int) else 7))
    report = verify_store(path)
    assert report.ok
    assert [note.path for note in report.notes] == [file]
    assert check_all_but(path, made, set(), workers=part in {"half", "ten frames"}) == []
    assert verify_store(path).ok


def flip_in(path: Path, kind: FrameKind, numbers: tuple[int, ...], at: int) -> list[tuple[Path, int]]:
    """Damage some of a store's frames of one kind, check that ``verify`` tells of each, and return where they are."""
    frames = frames_of(path, kind)
    places = [(file, frame.offset) for file, frame in (frames[number % len(frames)] for number in numbers)]
    for file, offset in places:
        flip(file, offset + at)
    assert set(places) <= {(problem.path, problem.offset) for problem in verify_store(path).problems}
    return places


def all_told(damage: list[str], places: list[tuple[Path, int]]) -> bool:
    return all(told(damage, *place) for place in places)


HEADER, BODY = 5, HEADER_BYTES + 9


@pytest.mark.parametrize("at", [HEADER, BODY])
@pytest.mark.parametrize("numbers", [(0,), (3,), (-1,), (1, 4)])
def test_a_damaged_frame_of_pages_is_made_up_for_by_the_journal(
    made: Made, tmp_path: Path, numbers: tuple[int, ...], at: int
) -> None:
    path = copy_of(made.worked_off, tmp_path)
    places = flip_in(path, FrameKind.PAGES, numbers, at)
    assert all_told(check_all_but(path, made, set(), workers=len(numbers) > 1 and at == BODY), places)


@pytest.mark.parametrize("at", [HEADER, BODY])
@pytest.mark.parametrize("numbers", [(0,), (3,), (-1,), (1, 4, -1)])
def test_a_damaged_frame_of_pages_costs_its_pages(
    made: Made, tmp_path: Path, numbers: tuple[int, ...], at: int
) -> None:
    path = copy_of(made.worked_off, tmp_path, journal=False)
    frames = frames_of(path, FrameKind.PAGES)
    lost = set[int]()
    for number in numbers:
        first, _, bodies = unpack_pages(frames[number][1].body)
        lost.update(range(first, first + len(bodies)))
    places = flip_in(path, FrameKind.PAGES, numbers, at)
    assert all_told(check_all_but(path, made, lost, workers=len(numbers) > 1), places)


@pytest.mark.parametrize("kind", [FrameKind.VECTORS, FrameKind.EVENTS, FrameKind.WORDS])
def test_damaged_derived_frames_are_made_again(made: Made, tmp_path: Path, kind: FrameKind) -> None:
    path = copy_of(made.worked_off, tmp_path, journal=False)
    last = len(frames_of(path, kind)) - 1
    assert last > 0
    # One header only: of neighbours without headers no reader can tell where the second begins.
    places = flip_in(path, kind, (*range(1, last, 3), last), BODY) + flip_in(path, kind, (0,), HEADER)
    assert all_told(check_all_but(path, made, set(), workers=True), places)


def test_frames_written_twice_count_once(made: Made, tmp_path: Path) -> None:
    """A writer may be killed when its frames are safe, and before it can say so: the next one writes them again."""
    path = copy_of(made.worked_off, tmp_path)
    segment = path / "segments" / "00000001.segment"
    sizes = []
    for times in (1, 2):
        segment.write_bytes(segment.read_bytes() * times)
        with open_fake(path) as memory:
            check_worked_off(memory, made.pages, settled=PAGES)
            stats = memory.stats()
            sizes.append((stats.sessions, stats.vectors))
    assert sizes[0] == sizes[1]
    report = verify_store(path)
    assert report.ok
    assert report.repeated == PAGES
    assert check_all_but(path, made, set(), workers=True) == []


def test_lost_batches_are_made_again_whatever_their_size(made: Made, tmp_path: Path) -> None:
    """Pages of two lost batches need not be neighbours: what lies between them keeps its place in its chain."""
    path = copy_of(made.worked_off, tmp_path, journal=False)
    flip_in(path, FrameKind.EVENTS, tuple(range(1, len(frames_of(path, FrameKind.EVENTS)), 2)), BODY)
    with nothing_left(), open_fake(path, short_term__capacity=20) as memory:
        check_worked_off(memory, made.pages, settled=PAGES)


def test_new_pages_do_not_inherit_vectors_of_lost_ones(made: Made, tmp_path: Path) -> None:
    """A power cut may take a journal's end and leave the vectors of its pages: their numbers are not used again."""
    path = copy_of(made.worked_off, tmp_path)
    (file, frame), *_ = frames_of(path, FrameKind.PAGES)
    segment = file.read_bytes()
    cut = segment.replace(segment[frame.offset : frame.offset + frame.length], b"")
    for _, later in frames_of(path, FrameKind.PAGES)[1:]:
        cut = cut.replace(segment[later.offset : later.offset + later.length], b"")
    file.write_bytes(cut)
    journal = the_journal(path)
    offset, _ = records(journal)[70]
    with journal.open("r+b") as opened:
        opened.seek(offset)
        opened.write(bytes(journal.stat().st_size - offset))
    lost = set(range(70, PAGES))
    check_all_but(path, made, lost, workers=True)


@pytest.mark.parametrize("offset", [0, 30, 60])
def test_a_damaged_manifest_is_refused(made: Made, tmp_path: Path, offset: int) -> None:
    path = copy_of(made.worked_off, tmp_path)
    text = (path / "MANIFEST").read_bytes()
    (path / "MANIFEST").write_bytes(text[:offset] + b"\0" + text[offset + 1 :])
    with nothing_left(), pytest.raises(StoreDamagedError, match="MANIFEST"):
        open_fake(path)
    assert not verify_store(path).ok
    (path / "MANIFEST").write_bytes(text)  # restored from a backup
    assert check_all_but(path, made, set()) == []


def test_a_lost_page_can_be_added_again_under_its_id(made: Made, tmp_path: Path) -> None:
    """As one does with an export, where there is no backup of the store."""
    path = copy_of(made.worked_off, tmp_path, journal=False)
    first, _, _ = unpack_pages(frames_of(path, FrameKind.PAGES)[2][1].body)
    flip_in(path, FrameKind.PAGES, (2,), BODY)
    lost = made.pages[first]
    for opening in range(2):
        with open_fake(path, workers=False) as memory:
            known = memory.get(lost.page_id)
            assert (known is None) == (opening == 0)
            memory.add(lost.user_id, lost.user_input, lost.agent_response, page_id=lost.page_id)
            again = memory.get(lost.page_id)
            assert again is not None and again.user_input == lost.user_input
            assert [page.page_id for page in all_pages(memory)].count(lost.page_id) == 1


def test_a_store_that_is_mended_after_its_lost_pages_were_added_again_can_be_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store"
    with open_fake(path) as memory:
        for number in range(4):
            memory.add("ann", f"page {number}", "", page_id=f"id{number}")
        memory.flush()
    ((file, frame),) = frames_of(path, FrameKind.PAGES)
    flip(file, frame.offset + BODY)
    with open_fake(path, workers=False) as memory:
        assert memory.get("id2") is None
        memory.add("ann", "page 2, again", "", page_id="id2")
    flip(file, frame.offset + BODY)  # restored from a backup
    with open_fake(path, workers=False) as memory:
        assert [page.user_input for page in all_pages(memory)] == [*(f"page {n}" for n in range(4)), "page 2, again"]
        found = memory.get("id2")
        assert found is not None and found.user_input == "page 2"
    assert "two pages have one id" in caplog.text
