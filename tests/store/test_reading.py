from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mos_pipeline.errors import InputError, StoreDamagedError, StoreError
from mos_pipeline.messages import encode_tombstone
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.segments import FrameAddress, SegmentReader
from tests.store.common import flip, made_folder, packed, pages, record


class Store:
    """A writer, a journal and a reader, with a count of the frames that were read from the disk."""

    def __init__(self, root: Path, cache_bytes: int) -> None:
        self.folder: StoreFolder = made_folder(root)
        self.writer = SegmentWriter(self.folder, 1 << 20, 3)
        self.journal = Journal.create(self.folder.journal(1), 1 << 16)
        self.segments = SegmentReader(self.folder)
        self.reader = PageReader(self.segments, cache_bytes)
        self.loads: list[FrameAddress] = []
        real = self.segments.read_frame

        def read_frame(address: FrameAddress) -> tuple[FrameKind, bytes]:
            self.loads.append(address)
            return real(address)

        self.segments.read_frame = read_frame  # type: ignore[method-assign]

    def accept(self, seq: int) -> None:
        offset = self.journal.append(seq, record(seq))
        assert offset is not None
        self.reader.add_unpersisted(seq, self.journal, offset)

    def frame(self, first_seq: int, count: int, text: str = "hello") -> PageFrame:
        return PageFrame(first_seq, count, self.writer.append(FrameKind.PAGES, pages(first_seq, count, text)))

    def close(self) -> None:
        self.segments.close()
        self.writer.close()
        self.journal.close()


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    made = Store(tmp_path / "store", getattr(request, "param", 1 << 20))
    yield made
    made.close()


def test_page_is_found_in_the_journal_then_in_its_segment(store: Store) -> None:
    for seq in range(10):
        store.accept(seq)
    store.reader.persisted([store.frame(0, 6)])
    assert store.reader.read_many(range(10)) == [record(seq) for seq in range(10)]
    assert len(store.loads) == 1
    store.reader.persisted([store.frame(6, 4)])
    store.journal.close()
    assert store.reader.read_many([9, 0, 9, 5]) == [record(seq) for seq in (9, 0, 9, 5)]


class Turns:
    """A lock that notes how many bytes of records were read while it was held, each time."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __enter__(self) -> None:
        self.read.append(0)

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("size", [10, 3_000, 30_000, 200_000])
def test_nobody_waits_for_more_than_a_few_long_records(
    store: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    records = [record(seq, "x" * size) for seq in range(70)]
    journal = Journal.create(store.folder.journal(2), 1 << 24)
    for seq, body in enumerate(records):
        offset = journal.append(seq, body)
        assert offset is not None
        store.reader.add_unpersisted(seq, journal, offset)
    turns, real = Turns(), journal.read

    def read(offset: int) -> tuple[int, bytes]:
        found = real(offset)
        turns.read[-1] += len(found[1])
        return found

    monkeypatch.setattr(journal, "read", read)
    monkeypatch.setattr(store.reader, "_lock", turns)
    assert store.reader.read_many(range(70)) == records
    longest = max(map(len, records))
    assert max(turns.read) <= (64 << 10) + longest
    assert len(turns.read) <= 3 + sum(map(len, records)) // (64 << 10)
    journal.close()


@pytest.mark.parametrize("seq", [-1, 0, 4, 8, 20, 1 << 70])
def test_unknown_page(store: Store, seq: int) -> None:
    store.reader.persisted([store.frame(1, 3), store.frame(5, 3)])
    with pytest.raises(InputError, match=f"no page {seq} in the store"):
        store.reader.read(seq)


def test_first_frame_of_a_page_wins_and_what_is_new_in_a_second_is_found(store: Store) -> None:
    first = store.frame(10, 5, "first")
    store.reader.persisted([first])
    store.reader.persisted([store.frame(8, 10, "second"), store.frame(0, 9, "third")])
    expected = {**dict.fromkeys(range(8), "third"), 8: "second", 9: "second"}
    expected |= {**dict.fromkeys(range(10, 15), "first"), **dict.fromkeys(range(15, 18), "second")}
    assert [store.reader.read(seq) for seq in range(18)] == [record(seq, expected[seq]) for seq in range(18)]


def test_frames_may_come_out_of_order(store: Store) -> None:
    store.reader.persisted([store.frame(first, 4) for first in (8, 0, 12, 4)])
    assert store.reader.read_many(range(16)) == [record(seq) for seq in range(16)]


def test_unpacked_frame_is_kept(store: Store) -> None:
    store.reader.persisted([store.frame(0, 8), store.frame(8, 8)])
    for seq in (0, 8, 1, 9, 2):
        store.reader.read(seq)
    assert len(store.loads) == 2


@pytest.mark.parametrize("store", [0], indirect=True)
def test_without_a_cache_one_call_still_unpacks_a_frame_once(store: Store) -> None:
    store.reader.persisted([store.frame(0, 8), store.frame(8, 8)])
    assert store.reader.read_many([0, 8, 1, 9]) == [record(seq) for seq in (0, 8, 1, 9)]
    assert len(store.loads) == 2
    store.reader.read(0)
    assert len(store.loads) == 3


@pytest.mark.parametrize("store", [1500], indirect=True)
def test_cache_forgets_the_frame_that_was_not_used_for_longest(store: Store) -> None:
    store.reader.persisted([store.frame(first, 8) for first in (0, 8, 16)])  # two of them fit
    for seq, loads in [(0, 1), (8, 2), (0, 2), (16, 3), (0, 3), (8, 4)]:
        store.reader.read(seq)
        assert len(store.loads) == loads


@pytest.mark.parametrize("store", [1500], indirect=True)
def test_frame_larger_than_the_cache_pushes_nothing_out(store: Store) -> None:
    store.reader.persisted([store.frame(0, 8), store.frame(8, 100)])
    for seq in (0, 8, 1):
        store.reader.read(seq)
    assert len(store.loads) == 2


def test_damaged_page_is_told_and_the_others_are_read(store: Store) -> None:
    frames = [store.frame(0, 4), store.frame(4, 4)]
    store.writer.sync()
    store.reader.persisted(frames)
    flip(store.folder.segment(1), frames[0].address.offset + 30)
    with pytest.raises(StoreDamagedError, match=r"00000001\.segment: damaged at offset 0"):
        store.reader.read(2)
    assert store.reader.read(5) == record(5)


def test_address_of_another_frame_is_noticed(store: Store) -> None:
    other = store.frame(50, 2)
    batch = store.writer.append(FrameKind.BATCH, packed(0, []))
    store.reader.persisted([PageFrame(0, 2, other.address), PageFrame(2, 2, batch)])
    for seq in (0, 2):
        with pytest.raises(StoreDamagedError, match=f"not the frame of page {seq}"):
            store.reader.read(seq)
    store.accept(60)
    store.reader.add_unpersisted(61, store.journal, 0)
    with pytest.raises(StoreDamagedError, match="page 60 lies at offset 0 of page 61"):
        store.reader.read(61)


def test_pages_are_found_by_other_threads_while_they_move_to_a_segment(store: Store) -> None:
    wrong: list[int] = []
    done = threading.Event()

    def read_all() -> None:
        while not done.is_set():
            wrong.extend(seq for seq in range(200) if store.reader.read(seq) != record(seq))

    for seq in range(200):
        store.accept(seq)
    threads = [threading.Thread(target=read_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for first in range(0, 200, 20):
        store.reader.persisted([store.frame(first, 20)])
    store.journal.close()  # no reader may touch it any more
    done.wait(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


def moved(old: FrameAddress, new: PageFrame) -> list[int]:
    return [*old, *new.address, new.first_seq, new.pages]


def test_moved_frames_are_read_at_their_new_place(store: Store) -> None:
    old = [store.frame(first, 8) for first in range(0, 1600, 8)]
    store.reader.persisted(old)
    assert store.reader.read(9) == record(9)
    new = [store.frame(frame.first_seq, 8, "moved") for frame in old]
    store.reader.moved(moved(a.address, b) for a, b in zip(old[:-1], new, strict=False))
    text = ["moved"] * 199 + ["hello"]
    assert [store.reader.read(8 * at + 1) for at in range(200)] == [record(8 * at + 1, text[at]) for at in range(200)]
    assert [store.reader.frame_of(8 * at) for at in range(200)] == [f.address for f in [*new[:-1], old[-1]]]


def test_pages_known_from_another_frame_stay_there_when_one_moves(store: Store) -> None:
    first, second = store.frame(10, 5, "first"), store.frame(8, 10, "second")
    store.reader.persisted([first, second])
    store.reader.moved([moved(second.address, store.frame(8, 10, "moved"))])
    texts = {**dict.fromkeys(range(8, 18), "moved"), **dict.fromkeys(range(10, 15), "first")}
    assert [store.reader.read(seq) for seq in range(8, 18)] == [record(seq, texts[seq]) for seq in range(8, 18)]


def test_frame_of_a_page_that_is_in_none(store: Store) -> None:
    store.accept(0)
    assert [store.reader.frame_of(seq) for seq in (-1, 0, 7)] == [None] * 3
    store.reader.persisted([frame := store.frame(0, 1)])
    assert store.reader.frame_of(0) == frame.address


def test_number_without_a_page_is_unknown(store: Store) -> None:
    stone = encode_tombstone([0])
    body = packed(0, [b"", stone, record(2)])
    store.reader.persisted([PageFrame(0, 3, store.writer.append(FrameKind.PAGES, body))])
    offset = store.journal.append(3, stone)
    assert offset is not None
    store.reader.add_unpersisted(3, store.journal, offset)
    for seq in (0, 1, 3):
        with pytest.raises(InputError, match=f"no page {seq} in the store"):
            store.reader.read(seq)
    assert store.reader.read(2) == record(2)


def test_frame_that_moves_while_it_is_looked_for_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = store.frame(0, 4), store.frame(0, 4, "moved")
    store.reader.persisted([old])
    real = store.segments.read_frame

    def read_frame(address: FrameAddress) -> tuple[FrameKind, bytes]:
        if address == old.address:
            store.reader.moved([moved(old.address, new)])
            raise StoreError("the segment could not be opened")
        return real(address)

    monkeypatch.setattr(store.segments, "read_frame", read_frame)
    assert store.reader.read(1) == record(1, "moved")


def test_dropped_segment_gives_its_descriptor_back(store: Store) -> None:
    address = store.frame(0, 4).address
    store.segments.read_frame(address)
    store.folder.segment(1).rename(store.folder.root / "elsewhere")
    store.segments.read_frame(address)
    store.segments.drop([1, 7])
    with pytest.raises(StoreError, match="could not be opened"):
        store.segments.read_frame(address)
