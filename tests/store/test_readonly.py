from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from mos_pipeline.errors import StoreDamagedError, StoreError
from mos_pipeline.messages import decode_record, decode_tombstone, encode
from mos_pipeline.stages.write import WriteStage
from mos_pipeline.store import readonly
from mos_pipeline.store.codec import FrameKind, encode_frame, unpack_pages
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.readonly import Fresh, ReadOnlyStore
from mos_pipeline.store.recovery import OpenStore, open_store
from tests.store.common import CONFIG, pages, record, run_python
from tests.store.compacting import Compactable, page, secret


class Memory:
    """What a reader makes of a store: page bodies by number, as they were given out."""

    def __init__(self, store: ReadOnlyStore) -> None:
        self.store = store
        self.looks = 0
        self._reset()
        self._take(Fresh(False, store.frames(), store.journaled_pages()))

    def _reset(self) -> None:
        self.bodies: dict[int, bytes] = {}
        self.kinds: list[FrameKind] = []
        self.journaled = list[int]()
        self.reader = PageReader(self.store.segments, 0)

    def refresh(self) -> bool:
        fresh = self.store.refresh()
        if fresh.anew:
            self._reset()
        self._take(fresh)
        return fresh.anew

    def _take(self, fresh: Fresh) -> None:
        for kind, _, body, address, _ in fresh.frames:
            self.kinds.append(kind)
            if kind == FrameKind.PAGES:
                first_seq, _, records = unpack_pages(body)
                self.reader.persisted([PageFrame(first_seq, len(records), address)])
                self.bodies.update(enumerate(records, first_seq))
        for seq, body, journal, offset in fresh.journaled:
            if seq not in self.bodies:
                self.journaled.append(seq)
                self.bodies[seq] = body
                self.reader.add_unpersisted(seq, journal, offset)

    @property
    def seqs(self) -> list[int]:
        return sorted(self.bodies)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Compactable]:
    made = Compactable(tmp_path / "store")
    yield made
    made.writer.close()


@pytest.fixture
def journal(owner: Compactable) -> Iterator[Journal]:
    made = Journal.create(owner.folder.journal(1), 1 << 16)
    yield made
    made.close()


def test_store_that_nobody_owns(tmp_path: Path) -> None:
    with open_store(tmp_path, CONFIG) as store:
        journal = store.new_journal()
        for seq in range(5):
            journal.append(seq, record(seq))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with ReadOnlyStore.open(tmp_path) as store:
        assert Memory(store).bodies == {seq: record(seq) for seq in range(5)}
        assert store.manifest == Manifest.load(store.folder)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_refresh_gives_what_is_new_and_only_that(owner: Compactable, journal: Journal) -> None:
    owner.add(4)
    journal.append(4, record(4))
    with ReadOnlyStore.open(owner.folder.root) as store:
        memory = Memory(store)
        assert (memory.seqs, memory.journaled) == ([0, 1, 2, 3, 4], [4])
        frames = len(memory.kinds)
        assert (memory.refresh(), memory.seqs, len(memory.kinds)) == (False, [0, 1, 2, 3, 4], frames)
        journal.append(5, record(5))
        owner.next_seq = 4
        owner.add(1)
        owner.writer.begin_next()
        owner.next_seq = 6
        owner.add(2)
        assert not memory.refresh()
        assert (memory.seqs, memory.journaled) == (list(range(8)), [4, 5])
        assert len(memory.kinds) == 3 * frames
        assert memory.reader.read_many([0, 5, 7]) == [page(0), record(5), page(7)]


def test_what_is_half_written_is_not_there_yet(owner: Compactable, journal: Journal) -> None:
    owner.add(2)
    frame = encode_frame(FrameKind.PAGES, pages(2, 2), 3, 3)
    path = owner.folder.segment(1)
    whole = path.read_bytes() + frame
    journal.append(4, record(4))
    content = owner.folder.journal(1).read_bytes()
    with ReadOnlyStore.open(owner.folder.root) as store:
        memory = Memory(store)
        for size in range(len(whole) - len(frame), len(whole), 7):
            path.write_bytes(whole[:size])
            assert (memory.refresh(), memory.seqs) == (False, [0, 1, 4])
        path.write_bytes(whole)
        memory.refresh()
        assert memory.seqs == [0, 1, 2, 3, 4]
        journal.append(5, record(5))
        later = owner.folder.journal(1).read_bytes()
        at = next(at for at, (old, new) in enumerate(zip(content, later, strict=True)) if old != new)
        with owner.folder.journal(1).open("r+b") as file:
            for size in (0, 3, 16, 20):
                file.seek(at)
                file.write(later[at : at + size] + bytes(100))
                file.flush()
                assert (memory.refresh(), memory.seqs) == (False, [0, 1, 2, 3, 4])
            file.seek(at)
            file.write(later[at:])
        memory.refresh()
        assert memory.seqs == [0, 1, 2, 3, 4, 5]
        assert store.damage == []


def test_page_is_read_from_its_journal_until_its_frame_is_known(owner: Compactable, journal: Journal) -> None:
    journal.append(0, record(0))
    with ReadOnlyStore.open(owner.folder.root) as store:
        memory = Memory(store)
        journal.path.unlink()
        assert memory.reader.read(0) == record(0)
        owner.put(FrameKind.PAGES, pages(0, 1), 0)
        memory.refresh()
        memory.refresh()
        assert memory.reader.read(0) == record(0)
        assert memory.reader.frame_of(0) is not None


def test_journal_of_the_same_name_is_another(owner: Compactable, journal: Journal) -> None:
    journal.append(0, record(0))
    with ReadOnlyStore.open(owner.folder.root) as store:
        memory = Memory(store)
        owner.put(FrameKind.PAGES, pages(0, 1), 0)
        journal.path.unlink()
        new = Journal.create(journal.path, 1 << 16)
        new.append(1, record(1))
        memory.refresh()
        assert memory.seqs == [0, 1]
        new.close()


def test_journal_in_the_making_is_not_there_yet(owner: Compactable) -> None:
    path = owner.folder.journal(1)
    with ReadOnlyStore.open(owner.folder.root) as store:
        memory = Memory(store)
        path.touch()
        memory.refresh()
        path.unlink()
        new = Journal.create(path, 1 << 16)
        new.append(0, record(0))
        memory.refresh()
        assert memory.seqs == [0]
        new.close()


def test_compaction_makes_the_reader_begin_anew_and_leaves_it_what_it_reads(owner: Compactable) -> None:
    for _ in range(4):
        owner.add(4)
    with ReadOnlyStore.open(owner.folder.root) as store:
        memory = Memory(store)
        old = memory.reader
        owner.compact([0, 1])
        owner.sweep()
        assert [seg.number for seg in owner.writer.manifest.retired] == [1]
        assert old.read_many(range(16)) == [page(seq) for seq in range(16)]
        assert memory.refresh()
        assert old.read_many(range(16)) == [page(seq) for seq in range(16)]
        assert [seq for seq, body in memory.bodies.items() if not body] == [0, 1]
        assert memory.reader.read_many(range(2, 16)) == [page(seq) for seq in range(2, 16)]
        owner.sweep()
        assert owner.folder.segment(1).exists()
        assert not memory.refresh()
        owner.sweep()
        assert not owner.folder.segment(1).exists()
        with pytest.raises(StoreError):
            old.read(3)
        assert memory.reader.read(3) == page(3)


def test_frame_that_its_owner_could_not_make_durable_and_cut(
    owner: Compactable, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.add(2)
    owner.writer.sync()
    owner.put(FrameKind.EVENTS, encode(["lost"]))
    with ReadOnlyStore.open(owner.folder.root) as store:
        memory = Memory(store)
        with monkeypatch.context() as broken, pytest.raises(StoreError):
            broken.setattr(os, "fdatasync", _fail)
            owner.writer.sync()
        assert memory.refresh()
        owner.put(FrameKind.STATE, encode(["another"]))
        assert not memory.refresh()
        assert memory.kinds[-2:] == [FrameKind.BATCH, FrameKind.STATE]


def _fail(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_damage_is_told_and_costs_itself(owner: Compactable) -> None:
    owner.add(2)
    owner.add(2)
    path = owner.folder.segment(1)
    data = bytearray(path.read_bytes())
    data[40] ^= 255
    path.write_bytes(data)
    with ReadOnlyStore.open(owner.folder.root) as store:
        assert Memory(store).seqs == [2, 3]
        assert [(damage.path, damage.offset) for damage in store.damage] == [(path, 0)]


def test_folder_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store here"):
        ReadOnlyStore.open(tmp_path)
    (tmp_path / "MANIFEST").write_text("junk")
    (tmp_path / "journal").mkdir()
    with pytest.raises(StoreDamagedError):
        ReadOnlyStore.open(tmp_path)


def test_generation_that_can_not_be_pinned(owner: Compactable) -> None:
    owner.folder.pins.rmdir()
    owner.folder.pins.touch()
    with pytest.raises(StoreError, match="could not be pinned"):
        ReadOnlyStore.open(owner.folder.root)


def test_store_of_an_owner_with_an_older_library_is_pinned_too(owner: Compactable) -> None:
    owner.add(2)
    owner.folder.pins.rmdir()
    with ReadOnlyStore.open(owner.folder.root) as store:
        assert Memory(store).seqs == [0, 1]
    assert owner.folder.pins.stat().st_mode & 0o777 == 0o700


HOLD = """
import sys, time
from mos_pipeline.store.readonly import ReadOnlyStore
store = ReadOnlyStore.open(sys.argv[1])
print("ready", flush=True)
time.sleep(60)
"""


def test_pin_of_a_killed_reader_is_gone(owner: Compactable) -> None:
    owner.add(4)
    child = run_python(HOLD, owner.folder.root)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    owner.compact([0])
    owner.sweep()
    assert owner.folder.segment(1).exists()
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    owner.sweep()
    assert not owner.folder.segment(1).exists()


OWN = """
import random, sys, time
from mos_pipeline.config import Store
from mos_pipeline.messages import encode_tombstone, pack_seqs
from mos_pipeline.stages.write import WriteStage
from mos_pipeline.store.codec import unpack_pages, FrameKind
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.recovery import OpenStore, open_store
from mos_pipeline.stages.write import WriteStage
from tests.store.compacting import page

class Report:
    def started(self, unit_ids): pass
    def failed(self, unit_id, message): print("failed", message, flush=True)
    def done(self, unit_id, result): pass

chance = random.Random(int(sys.argv[2]))
store = open_store(sys.argv[1], Store(journal_bytes=65536, segment_bytes=65536))
end, forgotten = 0, set()
for frame in store.frames():
    if frame.kind == FrameKind.PAGES:
        first, heads, records = unpack_pages(frame.body)
        end = max(end, first + len(records))
        forgotten.update(heads.forgotten, (first + at for at, body in enumerate(records) if not body))
stage, report = WriteStage(str(store.folder.root), 20_000, 3), Report()
stage.prepare()
for journal in store.journals():
    stage.accept(1, "pages", [str(journal.path), 0, journal.end, 8])
    stage.step(report)
    for record in journal.records():
        end = max(end, record.seq + 1)
    store.retire(journal)
print("ready", flush=True)
while True:
    journal, start = store.new_journal(), 0
    for _ in range(chance.randrange(1, 60)):
        if chance.random() < 0.1 and end:
            seqs = sorted(set(range(end)) & {chance.randrange(end) for _ in range(3)})
            forgotten.update(seqs)
            journal.append(end, encode_tombstone(seqs))
        else:
            journal.append(end, page(end))
        end += 1
        if chance.random() < 0.1:
            stage.accept(1, "pages", [str(journal.path), start, journal.end, 8])
            start = journal.end
            while stage._units:
                stage.step(report)
    stage.accept(2, "pages", [str(journal.path), start, journal.end, 8])
    if chance.random() < 0.3:
        segments = list(stage._open_writer().manifest.segments)
        wanted = {"segments": segments, "forgotten": pack_seqs(sorted(forgotten)), "superseded": None}
        stage.accept(3, "compact", wanted)
        stage.accept(4, "sweep", None)
    while stage.pending:
        stage.step(report)
    store.retire(journal)
"""


def checked(memory: Memory) -> int:
    """Return how many pages a reader knows, having proved that none of them is missing or another."""
    assert memory.seqs == list(range(len(memory.seqs)))
    forgotten = set[int]()
    for body in memory.bodies.values():
        forgotten.update(decode_tombstone(body) or ())
    for seq, body in memory.bodies.items():
        if body and decode_tombstone(body) is None:
            assert decode_record(body).user_input == secret(seq)
            if seq not in forgotten:
                assert memory.reader.read(seq) == body
    assert memory.store.damage == []
    return len(memory.seqs)


def test_a_journal_that_comes_and_goes_during_a_look_leaves_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    with open_store(root, CONFIG) as store:
        memory = Memory(ReadOnlyStore.open(root))
        looks = list[int]()

        def load_late(folder: StoreFolder) -> Manifest:
            """Return MANIFEST as it was before pages went through a journal into a segment, and more came."""
            found = Manifest.load(folder)
            if not looks:
                write_through(store, 5)
                journal = store.new_journal()
                journal.append(5, page(5))
            looks.append(1)
            return found

        monkeypatch.setattr(readonly, "Manifest", SimpleNamespace(load=load_late))
        memory.refresh()
        assert memory.seqs == list(range(6))
        assert len(looks) == 2
        memory.refresh()
        assert memory.seqs == list(range(6))
        assert len(looks) == 3, "where nothing has come and gone one look does"
        memory.store.close()


def write_through(store: OpenStore, count: int) -> None:
    """Let pages come into a journal, go into a segment, and the journal be removed."""
    journal = store.new_journal()
    for seq in range(count):
        journal.append(seq, page(seq))
    stage = WriteStage(str(store.folder.root), 20_000, 3)
    stage.prepare()
    stage.accept(1, "pages", [str(journal.path), 0, journal.end, 8])
    while stage.pending:
        stage.step(Silent())
    stage.close()
    store.retire(journal)


class Silent:
    """Takes a stage's reports."""

    def started(self, unit_ids: Sequence[int]) -> None: ...

    def done(self, unit_id: int, result: object) -> None: ...

    def failed(self, unit_id: int, message: str) -> None:
        raise AssertionError(message)

    def metered(self, told: object) -> None: ...

    def piece(self, unit_id: int, text: str) -> None: ...

    def endpoint(self, down_since: float | None) -> None: ...


@pytest.mark.slow
def test_readers_beside_an_owner_that_compacts_and_is_killed(tmp_path: Path) -> None:
    root, chance = tmp_path / "store", random.Random(7)
    open_store(root, CONFIG).close()
    memories = [Memory(ReadOnlyStore.open(root)) for _ in range(3)]
    anew, known = 0, [0, 0, 0]
    for life in range(6):
        child = run_python(OWN, root, life)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        until = time.monotonic() + chance.uniform(0.5, 1.0)
        while time.monotonic() < until:
            for number, memory in enumerate(memories):
                if chance.random() < 0.5:
                    anew += memory.refresh()
                    before, known[number] = known[number], checked(memory)
                    assert known[number] >= before
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        assert child.stdout.read() == ""
        child.stdout.close()
    for memory in memories:
        memory.refresh()
    assert len({checked(memory) for memory in memories}) == 1
    assert anew > 0
    assert checked(memories[0]) > 50
    for memory in memories:
        memory.store.close()
