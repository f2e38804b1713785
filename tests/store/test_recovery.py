from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mos_pipeline.errors import StoreDamagedError, StoreError, StoreFullError, StoreLockedError, StoreVersionError
from mos_pipeline.store.codec import HEADER_BYTES, FrameKind, encode_frame, unpack_pages
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.recovery import OpenStore, open_store
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.segments import FrameAddress
from mos_pipeline.store.seqs import SeqRanges
from tests.store.common import CONFIG, Snapshots, flip, pages, record, run_python

HOLD = """
import sys, time
from mos_pipeline.config import Store
from mos_pipeline.store.recovery import open_store
store = open_store(sys.argv[1], Store())
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def found_pages(store: OpenStore) -> list[tuple[int, bytes]]:
    """Every page once, as an owner takes them over: from segments first, then from journals."""
    known, found = SeqRanges(), list[tuple[int, bytes]]()
    for frame in store.frames():
        if frame.kind == FrameKind.PAGES:
            first, _, records = unpack_pages(frame.body)
            fresh = known.add(first, first + len(records))
            found += [(seq, records[seq - first]) for start, stop in fresh for seq in range(start, stop)]
    found += [(page.seq, page.body) for page in store.journaled_pages() if known.add(page.seq, page.seq + 1)]
    return found


def expected(*seqs: int) -> list[tuple[int, bytes]]:
    return [(seq, record(seq)) for seq in seqs]


def filled(root: Path, frames: int = 4, journaled: int = 3) -> list[FrameAddress]:
    """A store with so many frames of 4 pages, then so many pages in a journal; it is closed again."""
    with open_store(root, CONFIG) as store:
        writer = SegmentWriter(store.folder, CONFIG.segment_bytes, 3)
        addresses = [writer.append(FrameKind.PAGES, pages(4 * index, 4)) for index in range(frames)]
        writer.close()
        journal = store.new_journal()
        for seq in range(4 * frames, 4 * frames + journaled):
            journal.append(seq, record(seq))
    return addresses


def test_new_store_is_empty_private_and_opens_again(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        assert (list(store.frames()), store.journals(), store.damage, store.torn) == ([], [], [], [])
        identity = store.manifest.store
        store.new_journal()
    with open_store(str(root), CONFIG, create=False) as store:
        assert store.manifest.store == identity
    for path in [root, *root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_store_that_must_be_there_is_not_made(root: Path) -> None:
    with pytest.raises(StoreError, match="there is no store here"):
        open_store(root, CONFIG, create=False)
    assert not root.exists()


def test_relative_path_stays_what_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    with open_store("store", CONFIG) as store:
        monkeypatch.chdir("/")
        store.new_journal()
    assert (root / "journal" / "00000001.journal").exists()


def test_everything_is_there_after_reopening(root: Path) -> None:
    addresses = filled(root)
    with open_store(root, CONFIG) as store:
        assert [frame.address for frame in store.frames()] == addresses
        assert found_pages(store) == expected(*range(19))
        (journal,) = store.journals()
        pages_there = list(store.journaled_pages())
        assert [(page.journal, journal.read(page.offset)) for page in pages_there] == [
            (journal, (seq, record(seq))) for seq in (16, 17, 18)
        ]
        assert (store.damage, store.torn) == ([], [])


def test_second_open_is_refused_in_this_process(root: Path) -> None:
    with open_store(root, CONFIG):
        with pytest.raises(StoreLockedError) as caught:
            open_store(root, CONFIG)
        assert caught.value.pid == os.getpid()
    open_store(root, CONFIG).close()


def test_second_open_is_refused_beside_another_process(root: Path) -> None:
    owner = run_python(HOLD, root)
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=f"process {owner.pid} has") as caught:
            open_store(root, CONFIG)
        assert caught.value.pid == owner.pid
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    open_store(root, CONFIG).close()


def test_refused_store_is_unlocked_again(root: Path) -> None:
    filled(root)
    manifest = root / "MANIFEST"
    good = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(good), "format": 99}))
    for _ in range(2):
        with pytest.raises(StoreVersionError, match="format 99"):
            open_store(root, CONFIG)
    manifest.write_text("junk")
    with pytest.raises(StoreDamagedError):
        open_store(root, CONFIG)
    manifest.write_text(good)
    open_store(root, CONFIG).close()


@pytest.mark.parametrize("keep", ["segments", "journal"])
def test_missing_manifest_is_not_taken_for_a_new_store(root: Path, keep: str) -> None:
    filled(root)
    (root / "MANIFEST").unlink()
    for folder in {"segments", "journal"} - {keep}:
        for path in (root / folder).iterdir():
            path.unlink()
    with pytest.raises(StoreDamagedError, match=rf"MANIFEST: it is missing, though .*{keep}/00000001"):
        open_store(root, CONFIG)


def test_missing_segment_is_named(root: Path) -> None:
    filled(root)
    StoreFolder(root).segment(1).unlink()
    with pytest.raises(StoreDamagedError, match=r"00000001\.segment: the segment is missing"):
        open_store(root, CONFIG)


def test_segments_that_the_manifest_does_not_name(root: Path) -> None:
    filled(root)
    folder = StoreFolder(root)
    folder.segment(2).touch()
    folder.segment(3).write_bytes(b"something")
    with open_store(root, CONFIG) as store:
        assert not folder.segment(2).exists()
        assert not folder.segment(3).exists()
        assert [path.read_bytes() for path in folder.aside.iterdir()] == [b"something"]
        assert [(damage.path, damage.length) for damage in store.damage] == [(folder.segment(3), 9)]
        assert found_pages(store) == expected(*range(19))


def test_damaged_frame_costs_itself_and_is_reported_logged_and_kept(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    addresses = filled(root)
    path = StoreFolder(root).segment(1)
    flip(path, addresses[1].offset + HEADER_BYTES + 5)
    frame = path.read_bytes()[addresses[1].offset : addresses[2].offset]
    with open_store(root, CONFIG) as store:
        for _ in range(2):
            assert found_pages(store) == expected(*range(4), *range(8, 19))
        (damage,) = store.damage
        assert (damage.path, damage.offset, damage.length) == (path, addresses[1].offset, len(frame))
        assert "checksum" in damage.reason
        assert [kept.read_bytes() for kept in store.folder.aside.iterdir()] == [frame]
    assert caplog.text.count(f"{path}: {len(frame)} bytes at offset {damage.offset}") == 1
    assert path.stat().st_size > addresses[3].offset


def test_torn_tail_of_the_last_segment_is_reported_and_left_to_the_writer(root: Path) -> None:
    filled(root, journaled=0)
    path = StoreFolder(root).segment(1)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(encode_frame(FrameKind.PAGES, pages(16, 4), 3)[:50])
    with open_store(root, CONFIG) as store:
        assert found_pages(store) == expected(*range(16))
        assert [(torn.path, torn.offset, torn.length) for torn in store.torn] == [(path, size, 50)]
        assert store.damage == []
        assert path.stat().st_size == size + 50
        SegmentWriter(store.folder, CONFIG.segment_bytes, 3).close()
    assert path.stat().st_size == size


def test_torn_tail_of_an_earlier_segment_is_damage(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        writer = SegmentWriter(store.folder, 1, 3)
        for index in range(3):
            writer.append(FrameKind.PAGES, pages(index, 1))
        writer.close()
    path = StoreFolder(root).segment(2)
    os.truncate(path, 30)
    with open_store(root, CONFIG) as store:
        assert found_pages(store) == expected(0, 2)
        assert [(damage.path, damage.offset, damage.length) for damage in store.damage] == [(path, 0, 30)]
        assert store.torn == []


def test_torn_and_damaged_journal(root: Path) -> None:
    filled(root, frames=0, journaled=4)
    path = StoreFolder(root).journal(1)
    length = 16 + len(record(0))
    flip(path, length + 20)
    flip(path, 3 * length + 20)
    data = path.read_bytes()
    with open_store(root, CONFIG) as store:
        assert found_pages(store) == expected(0, 2)
        assert [damage[:3] for damage in store.damage] == [(path, length, length)]
        assert [torn[:3] for torn in store.torn] == [(path, 3 * length, length)]
        assert store.journals()[0].end == 3 * length
        kept = {copy.read_bytes() for copy in store.folder.aside.iterdir()}
        assert kept == {data[length : 2 * length], data[3 * length : 4 * length]}


def test_journals_are_numbered_on_and_retired(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        journals = [store.new_journal() for _ in range(3)]
        for seq, journal in enumerate(journals):
            journal.append(seq, record(seq))
        store.retire(journals[0])
        store.retire(journals[1])
        assert store.journals() == [journals[2]]
    assert [path.name for path in (root / "journal").iterdir()] == ["00000003.journal"]
    with open_store(root, CONFIG) as store:
        assert store.new_journal().path.name == "00000004.journal"
        assert found_pages(store) == expected(2)


def test_journals_that_were_made_ahead_and_never_used_are_removed(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        store.new_journal()
        StoreFolder(root).journal(2).touch()
    with open_store(root, CONFIG) as store:
        assert store.journals() == []
        assert list((root / "journal").iterdir()) == []


def test_journal_is_as_large_as_a_record_needs(root: Path) -> None:
    with open_store(root, CONFIG) as store:
        assert store.new_journal().size == CONFIG.journal_bytes
        assert store.new_journal(CONFIG.journal_bytes + 5).size == CONFIG.journal_bytes + 5


def test_no_room_for_a_journal_leaves_the_store_usable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(root, CONFIG) as store:
        with pytest.raises(StoreFullError, match="00000001"):
            store.new_journal(1 << 60)
        assert store.journals() == []
        store.new_journal()


def test_crash_after_any_system_call_loses_nothing_and_repeats_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner's life, copied after each call: through the store's making, rotations and retired journals."""
    accepted: list[int] = []
    with monkeypatch.context() as watched:
        snapshots = Snapshots(watched, root, tmp_path / "copies")
        snapshots.state = lambda: len(accepted)
        with open_store(root, replace(CONFIG, journal_bytes=400)) as store:
            writer = SegmentWriter(store.folder, 200, 3)
            for first in range(0, 24, 4):
                journal = store.new_journal()
                for seq in range(first, first + 4):
                    assert journal.append(seq, record(seq)) is not None
                    accepted.append(seq)
                writer.append(FrameKind.PAGES, pages(first, 4))
                writer.sync()
                store.retire(journal)
            assert len(writer.manifest.segments) > 2
            writer.close()
    assert len({name for _, name, _ in snapshots.taken}) >= 6
    for copy, name, count in snapshots.taken:
        with open_store(copy, CONFIG) as store:
            assert found_pages(store) == expected(*range(count)), copy.name
            assert (store.damage, store.torn) == ([], []), (copy, name)
            writer = SegmentWriter(store.folder, 200, 3)
            writer.append(FrameKind.PAGES, pages(count, 4))
            writer.close()
        with open_store(copy, CONFIG) as store:
            assert sorted(found_pages(store)) == expected(*range(count + 4)), copy.name


def test_last_segment_is_made_durable_before_a_journal_may_be_removed_because_of_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(root)
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with open_store(root, CONFIG) as store:
        assert "00000001.segment" in synced
        assert Manifest.load(store.folder) == store.manifest
