from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mos_pipeline.errors import InputError, StoreError
from mos_pipeline.messages import decode, encode
from mos_pipeline.store.codec import SCOPE_KINDS, FrameKind, pack_pages, unpack_pages
from mos_pipeline.store.compaction import CompactionRequest
from mos_pipeline.store.derived import decode_vectors, decode_words
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.heads import heads_of
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.pins import Pin
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.segments import FrameAddress, SegmentReader
from mos_pipeline.store.verify import verify_store
from tests.store.common import Snapshots, flip
from tests.store.compacting import Compactable, all_bytes, frames, page, records, secret, texts


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Compactable]:
    """Three segments of two frames' worth of 8 pages each."""
    made = Compactable(tmp_path / "store")
    for number in range(3):
        if number:
            made.writer.begin_next()
        made.add(8)
        made.add(8)
    yield made
    made.writer.close()


def reopened(store: Compactable) -> dict[int, str]:
    store.writer.close()
    found = texts(store.folder.root)
    store.writer = SegmentWriter(store.folder, store.writer.segment_bytes, 3)
    return found


def test_forgotten_pages_are_gone_from_every_byte_and_the_others_are_there(store: Compactable) -> None:
    gone = {0, 1, 2, 3, 4, 5, 6, 7, 12, 20, 47}
    store.forget(gone)
    state = store.put(FrameKind.STATE, encode(["state"]))
    result = store.compact(gone, superseded=state)
    store.sweep()
    assert not [seq for seq in gone if secret(seq).encode() in all_bytes(store.folder.root)]
    assert result["removed"] == [1, 2, 3]
    assert list(store.segments) == [5, 4]  # they fit into one
    assert result["before"] > result["after"] == store.folder.segment(5).stat().st_size
    found = frames(store.folder, store.segments)
    held = records(found)
    assert sorted(held) == list(range(49))
    assert {seq for seq, body in held.items() if body} == set(range(48)) - gone
    assert all(held[seq] == page(seq) for seq in range(48) if seq not in gone)
    assert scope_frames(store) == [["state"]]
    assert reopened(store) == {seq: secret(seq) for seq in range(48) if seq not in gone}
    report = verify_store(store.folder.root)
    assert (report.problems, report.notes, report.pages) == ([], [], 48 - len(gone))


def test_heads_forget_what_pages_said_but_their_sources(store: Compactable) -> None:
    store.compact(range(1, 48))
    heads = [unpack_pages(frame.body).heads for frame in frames(store.folder, store.segments) if frame.kind == 1]
    assert [(head.scopes, head.page_ids) for head in heads] == [
        ([("user 0", "assistant")], [(0, secret(0))]),
        *[([], [])] * 5,
    ]
    assert [head.sources for head in heads] == [{b"file": last} for last in range(7, 48, 8)]


def test_derived_data_of_forgotten_pages_goes(store: Compactable) -> None:
    store.compact([*range(8), 9])
    found = frames(store.folder, store.segments)
    vectors = [decode_vectors(frame.body) for frame in found if frame.kind == FrameKind.VECTORS]
    words = [decode_words(frame.body)[1] for frame in found if frame.kind == FrameKind.WORDS]
    left = [8, *range(10, 48)]
    assert [seq for frame in vectors for seq in frame.seqs.tolist()] == left
    assert [row[0] for frame in vectors for row in frame.vectors.tolist()] == left
    assert [word for frame in words for word in frame.hashes.tolist()] == [seq for seq in left for _ in range(2)]
    assert [decode(frame.body)[0] for frame in found if frame.kind == FrameKind.ASIDE] == [8, 16, 24, 32, 40]


def test_highest_page_that_a_frame_spoke_of_stays_known(store: Compactable) -> None:
    store.compact([7, 47])
    found = frames(store.folder, store.segments)
    assert [frame.last_page for frame in found if frame.kind == FrameKind.VECTORS] == list(range(7, 48, 8))


def test_rows_tell_where_frames_of_pages_went(store: Compactable) -> None:
    old = {(number, frame.offset) for number in (1, 3) for frame in frames(store.folder, [number]) if frame.kind == 1}
    result = store.compact([0, 40], segments=[1, 3])
    assert {tuple(row[:2]) for row in result["moved"]} == old
    reader = SegmentReader(store.folder)
    for *_, segment, offset, first_seq, count in result["moved"]:
        pages = unpack_pages(reader.read_frame(FrameAddress(segment, offset))[1])
        assert (pages.first_seq, len(pages.records)) == (first_seq, count)
    reader.close()


def test_new_segments_take_the_places_of_the_old(store: Compactable) -> None:
    store.compact([0], segments=[1])
    assert list(store.segments) == [4, 2, 3]
    store.compact([0, 40], segments=[3, 4])
    assert list(store.segments) == [6, 2, 7, 5]
    assert list(records(frames(store.folder, store.segments))) == list(range(48))
    assert Manifest.load(store.folder).generation == 2


def test_neighbours_are_joined_up_to_the_size_of_a_segment(tmp_path: Path) -> None:
    store = Compactable(tmp_path / "store", 3000)
    for _ in range(24):
        store.add(8)
    many = len(store.segments)
    store.compact(range(150))
    assert len(store.segments) < many
    assert all(store.folder.segment(number).stat().st_size <= 3000 for number in store.segments)
    assert list(records(frames(store.folder, store.segments))) == list(range(192))
    store.writer.close()


def scope_frames(store: Compactable) -> list[list[str]]:
    return [decode(frame.body) for frame in frames(store.folder, store.segments) if frame.kind in SCOPE_KINDS]


def test_what_scopes_were_is_superseded_by_place_not_by_number(store: Compactable) -> None:
    store.compact([0], segments=[2])  # 1, 4, 3: so 4 is older than 3
    store.put(FrameKind.EVENTS, encode(["late"]))
    state = store.put(FrameKind.STATE, encode(["state"]))
    store.put(FrameKind.EVENTS, encode(["later"]))
    store.compact([0], segments=[1, 4], superseded=state)
    assert store.segments == (5, 3)
    batches = [[secret(seq) for seq in range(first, first + 8)] for first in (32, 40)]
    assert scope_frames(store) == [*batches, ["late"], ["state"], ["later"]]
    store.compact([0], superseded=state)
    assert scope_frames(store) == [["state"], ["later"]]


def tombstones(store: Compactable) -> list[int]:
    heads = [unpack_pages(frame.body).heads for frame in frames(store.folder, store.segments) if frame.kind == 1]
    return [seq for head in heads for seq in head.forgotten]


def state_of(store: Compactable) -> FrameAddress:
    """Where the frame STATE is now."""
    return next(
        FrameAddress(number, frame.offset)
        for number in store.segments
        for frame in frames(store.folder, [number])
        if frame.kind == FrameKind.STATE
    )


def test_tombstone_stays_while_any_frame_may_speak_of_its_pages(store: Compactable) -> None:
    store.forget([1, 2])
    state = store.put(FrameKind.STATE, encode(["state"]))
    store.forget([3])
    store.compact([1, 2, 3], segments=[1, 3], superseded=state)  # not all segments
    assert tombstones(store) == [1, 2, 3]
    store.compact([1, 2, 3])  # frames of scopes were kept
    assert tombstones(store) == [1, 2, 3]
    store.compact([1], superseded=state_of(store))  # one of its pages stays
    assert tombstones(store) == [1, 2, 3]
    store.compact([1, 2, 3], superseded=state_of(store))  # 3 was forgotten after the state was written
    assert tombstones(store) == [3]
    assert reopened(store) == {seq: secret(seq) for seq in range(48) if seq not in (1, 2, 3)}


def test_store_goes_on_while_it_is_compacted(store: Compactable) -> None:
    compaction = store.begin([0, 1])
    steps = compaction.steps()
    for _ in range(4):
        next(steps)
    store.add(8)
    store.writer.begin_next()
    store.add(8)
    for _ in steps:
        pass
    store.add(8)
    compaction.commit()
    assert store.segments == (5, 4, 6)
    assert sorted(reopened(store)) == list(range(2, 72))


def test_abandoned_pass_leaves_the_store_as_it_was(store: Compactable) -> None:
    before = store.segments
    compaction = store.begin([0])
    steps = compaction.steps()
    for _ in range(9):
        next(steps)
    assert store.writer.manifest.drafts == (5,)
    compaction.abandon()
    assert store.segments == (*before, 4)
    assert [path.name for path in sorted(store.folder.segments.iterdir())] == [f"{n:08d}.segment" for n in (1, 2, 3, 4)]
    assert sorted(reopened(store)) == list(range(48))


def test_asked_again_after_it_was_in_force_it_tells_where_frames_went(store: Compactable) -> None:
    first = store.compact([0, 40], segments=[1, 3])
    segments = store.segments
    second = store.compact([0, 40], segments=[1, 3])
    assert sorted(second["moved"]) == sorted(first["moved"])
    assert (second["removed"], second["before"]) == (first["removed"], first["before"])
    assert store.segments == segments


@pytest.mark.parametrize(("segments", "superseded"), [([9], None), ([1, 9], None), ([1], FrameAddress(9, 0))])
def test_request_that_does_not_fit_is_refused(
    store: Compactable, segments: list[int], superseded: FrameAddress | None
) -> None:
    before = store.writer.manifest
    with pytest.raises(InputError, match="can't be compacted"):
        store.compact([0], segments=segments, superseded=superseded)
    assert store.writer.manifest == before


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"segments": [1], "forgotten": b"\xc1", "superseded": None},
        {"segments": [1], "forgotten": b"\x90", "superseded": [1]},
        {"segments": [[]], "forgotten": b"\x90", "superseded": None},
        {"segments": 1, "forgotten": b"\x90", "superseded": None},
    ],
)
def test_malformed_request(payload: object) -> None:
    with pytest.raises(InputError, match="malformed"):
        CompactionRequest.from_payload(payload)


def test_damaged_frame_costs_itself_and_is_kept_aside(store: Compactable, caplog: pytest.LogCaptureFixture) -> None:
    store.writer.sync()
    flip(store.folder.segment(1), 40)
    store.compact([40])
    assert sorted(records(frames(store.folder, store.segments))) == list(range(8, 48))
    assert "damaged at offset 0" in caplog.text
    assert len(list(store.folder.aside.iterdir())) == 1


def test_frames_that_are_not_what_they_say(store: Compactable, caplog: pytest.LogCaptureFixture) -> None:
    store.put(FrameKind.PAGES, encode("no pages"))
    store.put(FrameKind.WORDS, encode("no words"))
    store.compact([0])
    bodies = [frame.body for frame in frames(store.folder, store.segments)]
    assert encode("no pages") in bodies  # whatever it is, it may be a page
    assert encode("no words") not in bodies
    assert "left as it is" in caplog.text
    assert "WORDS is left out" in caplog.text


def test_empty_store_and_empty_segment(tmp_path: Path) -> None:
    store = Compactable(tmp_path / "store")
    assert store.compact([]) == {"moved": [], "removed": [], "before": 0, "after": 0}
    store.add(2)
    store.compact([0])
    assert store.segments == (3, 2)
    assert store.compact([0])["removed"] == [3]  # nothing was written to 2 yet
    assert store.segments == (4, 2)
    store.writer.close()


def test_segment_with_nothing_left_is_gone(store: Compactable) -> None:
    store.writer.begin_next()
    store.put(FrameKind.BATCH, encode([]))
    store.writer.begin_next()
    state = store.put(FrameKind.STATE, encode([]))
    store.compact([], segments=[4], superseded=state)
    assert store.segments == (1, 2, 3, 5)
    assert store.writer.manifest.next_number == 6


def test_full_disk_spoils_the_pass_only(store: Compactable, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.segments
    compaction = store.begin([0])
    with monkeypatch.context() as broken, pytest.raises(StoreError, match="no room"):
        broken.setattr(os, "pwrite", _full)
        for _ in compaction.steps():
            pass
    compaction.abandon()
    assert store.segments[:3] == before
    store.compact([0])
    assert sorted(reopened(store)) == list(range(1, 48))


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_commit_is_tried_again_until_it_is_known_to_be_in_force(
    store: Compactable, monkeypatch: pytest.MonkeyPatch
) -> None:
    compaction = store.begin([0])
    for _ in compaction.steps():
        pass
    for call in ("fsync", "replace"):
        with monkeypatch.context() as broken, pytest.raises(StoreError):
            broken.setattr(os, call, _full)
            compaction.commit()
        store.add(8)
    assert compaction.commit()["removed"] == [1, 2, 3]
    assert sorted(reopened(store)) == list(range(1, 64))


def test_every_moment_of_a_crash_leaves_the_old_or_the_new(
    store: Compactable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = {0, 1, 17}
    state = store.put(FrameKind.STATE, encode([]))
    store.writer.sync()
    with monkeypatch.context() as watched:
        snapshots = Snapshots(watched, store.folder.root, tmp_path / "snapshots")
        store.compact(gone, superseded=state)
        store.sweep()
    seen = set[bool]()
    for copy, _, _ in snapshots.taken:
        verdict = verify_store(copy)
        assert verdict.problems == []
        held = texts(copy)
        new = len(held) == 45
        assert sorted(held) == [seq for seq in range(48) if not (new and seq in gone)]
        seen.add(new)
        named = {f"{number:08d}.segment" for number in Manifest.load(StoreFolder(copy)).segments}
        assert {path.name for path in (copy / "segments").iterdir()} == named
    assert seen == {False, True}
    assert len(snapshots.taken) > 10


def test_pinned_segments_stay_until_their_last_reader_is_gone(store: Compactable) -> None:
    first = Pin.take(store.folder)
    store.compact([0], segments=[1])
    second, third = Pin.take(store.folder), Pin.take(store.folder)
    store.compact([16], segments=[2])
    store.sweep()
    assert store.folder.segment(1).exists()
    assert [old.number for old in store.writer.manifest.retired] == [1, 2]
    first.release()
    store.sweep()
    assert [old.number for old in store.writer.manifest.retired] == [2]
    assert (store.folder.segment(1).exists(), store.folder.segment(2).exists()) == (False, True)
    second.release()
    store.sweep()
    assert store.folder.segment(2).exists()
    third.release()
    assert sorted(reopened(store)) == [seq for seq in range(48) if seq not in (0, 16)]  # the opening deletes it
    assert not store.folder.segment(2).exists()
    assert [path.name for path in store.folder.pins.iterdir()] == ["00000002"]


def test_pin_that_came_late_is_taken_anew(store: Compactable, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, real = list[int](), Manifest.load.__func__  # type: ignore[attr-defined]

    def load(cls: type[Manifest], folder: object) -> Manifest:
        found: Manifest = real(cls, folder)
        loads.append(found.generation)
        if len(loads) == 1:
            store.compact([0])
            store.sweep()
        return found

    monkeypatch.setattr(Manifest, "load", classmethod(load))
    with Pin.take(store.folder) as pin:
        assert pin.manifest.generation == 1
        assert loads == [0, 1, 1, 1]
        assert all(store.folder.segment(number).exists() for number in pin.manifest.segments)


def test_pin_is_not_waited_for_while_an_older_generation_is_deleted(
    store: Compactable, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pin.take(store.folder).release()
    loads, real = list[int](), Manifest.load.__func__  # type: ignore[attr-defined]

    def load(cls: type[Manifest], folder: object) -> Manifest:
        loads.append(0)
        found: Manifest = real(cls, folder)
        return found if len(loads) > 1 else old

    old = store.writer.manifest
    store.compact([0])
    with store.folder.pin(0).open() as deleting:
        fcntl.flock(deleting, fcntl.LOCK_EX)
        monkeypatch.setattr(Manifest, "load", classmethod(load))
        with Pin.take(store.folder) as pin:
            assert pin.manifest.generation == 1


def test_drafts_of_a_killed_writer_go_with_the_next_pass(store: Compactable, tmp_path: Path) -> None:
    compaction = store.begin([0])
    steps = compaction.steps()
    for _ in range(9):
        next(steps)
    left = StoreFolder(tmp_path / "left")
    shutil.copytree(store.folder.root, left.root)
    compaction.abandon()
    store.writer.close()
    assert left.segment(5).stat().st_size
    store.folder, store.writer = left, SegmentWriter(left, 1 << 20, 3)
    store.compact([0])
    assert not left.segment(5).exists()
    assert store.segments == (6, 4)


def test_pages_of_frames_written_twice_are_dropped_in_both(store: Compactable) -> None:
    twice = pack_pages(0, heads_of([page(0), page(1)]), [page(0), page(1)])
    store.put(FrameKind.PAGES, twice, 1)
    store.compact([0])
    found = [frame.body for frame in frames(store.folder, store.segments) if frame.kind == FrameKind.PAGES]
    assert secret(0).encode() not in b"".join(found)
    assert 1 in reopened(store)
