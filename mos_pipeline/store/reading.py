"""Reading pages back by sequence number, from segments and from journals."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self

from mos_pipeline.errors import InputError, StoreDamagedError, StoreError
from mos_pipeline.messages import is_tombstone
from mos_pipeline.store.codec import FrameKind, unpack_records
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.segments import FrameAddress, SegmentReader
from mos_pipeline.store.seqs import SeqRanges

__all__ = ["MovedFrame", "PageFrame", "PageReader"]

MOVED_AT_ONCE = 64  # so that readers wait some 0.1 ms for the lock, however many frames were moved
READ_AT_ONCE = 32  # records, likewise
READ_BYTES = 64 << 10  # of them, but for one that is longer
RECORD_COST = 41  # bytes of memory that a record takes beyond its own: a bytes object's head and a place in a list


class PageFrame(NamedTuple):
    """A PAGES frame: it holds the pages ``first_seq`` to ``first_seq + pages - 1``."""

    first_seq: int
    pages: int
    address: FrameAddress


class MovedFrame(NamedTuple):
    """A PAGES frame that was rewritten: it lies at ``new`` now, and held ``pages`` pages from ``first_seq`` on."""

    old: FrameAddress
    new: FrameAddress
    first_seq: int
    pages: int

    @classmethod
    def from_row(cls, row: Sequence[int]) -> Self:
        """Return what a row of six numbers says: old segment and offset, new segment and offset, first page, pages."""
        old_segment, old_offset, new_segment, new_offset, first_seq, pages = row
        return cls(FrameAddress(old_segment, old_offset), FrameAddress(new_segment, new_offset), first_seq, pages)


class PageReader:
    """Finds a page's record wherever it is. Safe to use from any thread.

    Known are ranges of pages that lie in frames, and single pages that are still in a journal only. Unpacked frames
    are kept, those used last, up to a number of bytes.
    """

    def __init__(self, segments: SegmentReader, cache_bytes: int) -> None:
        """Read through ``segments``; keep at most ``cache_bytes`` of unpacked records."""
        self._segments = segments
        self._journaled: dict[int, tuple[Journal, int]] = {}
        self._known = SeqRanges()
        # One row for each range of pages, ascending: its first page, one past its last, and where its frame is.
        self._starts, self._stops, self._firsts = array("Q"), array("Q"), array("Q")
        self._numbers, self._offsets = array("Q"), array("Q")
        self._cache = _FrameCache(cache_bytes)
        self._lock = Lock()

    def path(self, address: FrameAddress) -> Path:
        """Return the file that a frame lies in."""
        return self._segments.path(address.segment)

    def add_unpersisted(self, seq: int, journal: Journal, offset: int) -> None:
        """Note that a page is in ``journal`` at ``offset``. Takes no lock, and 0.1 µs."""
        self._journaled[seq] = (journal, offset)

    def persisted(self, frames: Iterable[PageFrame]) -> None:
        """Note frames that are durable; a page that was known in a frame before stays there (the first wins).

        Once this has returned, no thread reads these pages from their journal any more: it may be retired.
        """
        with self._lock:
            for frame in frames:
                stop = frame.first_seq + frame.pages
                for fresh in self._known.add(frame.first_seq, stop):
                    self._insert(*fresh, frame)
                for seq in range(frame.first_seq, stop):
                    self._journaled.pop(seq, None)

    def moved(self, moves: Iterable[Sequence[int]]) -> None:
        """Read frames from now on where the writer moved them to: rows as ``MovedFrame.from_row`` takes them.

        The old frames must stay readable until this has returned.
        """
        rows = iter(moves)
        while part := list(islice(rows, MOVED_AT_ONCE)):
            with self._lock:
                for move in map(MovedFrame.from_row, part):
                    self._cache.drop(move.old)
                    self._swap(move)

    def _swap(self, move: MovedFrame) -> None:
        at = bisect_left(self._starts, move.first_seq)
        while at < len(self._starts) and self._starts[at] < move.first_seq + move.pages:
            if (self._numbers[at], self._offsets[at]) == move.old:
                self._numbers[at], self._offsets[at] = move.new
            at += 1

    def frame_of(self, seq: int) -> FrameAddress | None:
        """Return where the frame of a page's record is; None where the page is in no frame yet, or not there at all."""
        with self._lock:
            at = bisect_right(self._starts, seq) - 1
            if at < 0 or seq >= self._stops[at]:
                return None
            return FrameAddress(self._numbers[at], self._offsets[at])

    def _insert(self, start: int, stop: int, frame: PageFrame) -> None:
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._stops.insert(at, stop)
        self._firsts.insert(at, frame.first_seq)
        self._numbers.insert(at, frame.address.segment)
        self._offsets.insert(at, frame.address.offset)

    def read(self, seq: int) -> bytes:
        """Return a page's record.

        Raises:
            InputError: there is no page of that number, or no more.
            StoreDamagedError: its bytes are damaged.
            StoreError: its segment can't be read.
        """
        return self.read_many((seq,))[0]

    def read_many(self, seqs: Sequence[int]) -> list[bytes]:
        """Return the records of ``seqs``, in their order; a frame is unpacked once for all of them.

        Raises:
            InputError, StoreDamagedError, StoreError: as from ``read``.
        """
        return [_given(seq, body) for seq, body in zip(seqs, self._read(seqs), strict=True)]

    def read_left(self, seqs: Sequence[int]) -> list[bytes | None]:
        """Return the records of ``seqs``, in their order, as ``read_many``; None for a page that is gone by now.

        Raises:
            InputError, StoreDamagedError, StoreError: as from ``read``, but for pages that are gone.
        """
        return self._read(seqs)

    def _read(self, seqs: Sequence[int]) -> list[bytes | None]:
        unpacked: dict[FrameAddress, list[bytes]] = {}
        bodies = list[bytes]()
        while len(bodies) < len(seqs):
            part = seqs[len(bodies) : len(bodies) + READ_AT_ONCE]
            with self._lock:
                at_hand = self._some_at_hand(part, unpacked)
            bodies += [
                self._from_frame(seq, unpacked) if body is None else body
                for seq, body in zip(part, at_hand, strict=False)
            ]
        return [None if not body or is_tombstone(body) else body for body in bodies]

    def _some_at_hand(self, seqs: Sequence[int], unpacked: dict[FrameAddress, list[bytes]]) -> list[bytes | None]:
        """Return what ``_at_hand`` tells of the first of ``seqs``, as many as are read in no time; under the lock."""
        found, size = list[bytes | None](), 0
        for seq in seqs:
            body = self._at_hand(seq, unpacked)
            found.append(body)
            size += 0 if body is None else len(body)
            if size >= READ_BYTES:
                break
        return found

    def _at_hand(self, seq: int, unpacked: dict[FrameAddress, list[bytes]]) -> bytes | None:
        """Return a page's record if it needs no frame to be unpacked; under the lock."""
        place = self._journaled.get(seq)
        if place is not None:
            return _from_journal(seq, *place)
        frame = self._find(seq)
        records = unpacked.get(frame.address) or self._cache.get(frame.address)
        if records is None:
            return None
        unpacked[frame.address] = records
        return records[seq - frame.first_seq]

    def _from_frame(self, seq: int, unpacked: dict[FrameAddress, list[bytes]]) -> bytes:
        with self._lock:
            body = self._at_hand(seq, unpacked)
            if body is not None:
                return body
            frame = self._find(seq)
        try:
            records = self._unpack(frame)
        except StoreError:
            if self.frame_of(seq) == frame.address:
                raise
            return self._from_frame(seq, unpacked)  # it was moved, and the old one removed, since we looked
        with self._lock:
            self._cache.put(frame.address, records)
        unpacked[frame.address] = records
        return records[seq - frame.first_seq]

    def _find(self, seq: int) -> PageFrame:
        at = bisect_right(self._starts, seq) - 1
        if at < 0 or seq >= self._stops[at]:
            raise _no_page(seq)
        first = self._firsts[at]
        return PageFrame(first, self._stops[at] - first, FrameAddress(self._numbers[at], self._offsets[at]))

    def _unpack(self, frame: PageFrame) -> list[bytes]:
        kind, body = self._segments.read_frame(frame.address)
        if kind == FrameKind.PAGES:
            first_seq, records = unpack_records(body)
            if first_seq == frame.first_seq and len(records) >= frame.pages:
                return records
        segment, offset = frame.address
        raise StoreDamagedError(
            f"segment {segment}, offset {offset}: not the frame of page {frame.first_seq}; reopen the store"
        )


def _given(seq: int, body: bytes | None) -> bytes:
    if body is None:
        raise _no_page(seq)
    return body


def _no_page(seq: int) -> InputError:
    return InputError(f"there is no page {seq} in the store; ask for one that was accepted and not forgotten")


def _from_journal(seq: int, journal: Journal, offset: int) -> bytes:
    found, body = journal.read(offset)
    if found != seq:
        raise StoreDamagedError(f"{journal.path}: page {found} lies at offset {offset} of page {seq}; reopen the store")
    return body


class _FrameCache:
    """Unpacked frames, those used last, bounded in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: OrderedDict[FrameAddress, tuple[list[bytes], int]] = OrderedDict()
        self._bytes = 0

    def get(self, address: FrameAddress) -> list[bytes] | None:
        entry = self._frames.get(address)
        if entry is None:
            return None
        self._frames.move_to_end(address)
        return entry[0]

    def put(self, address: FrameAddress, records: list[bytes]) -> None:
        size = sum(map(len, records)) + RECORD_COST * len(records)
        if size > self._limit or address in self._frames:
            return
        self._frames[address] = records, size
        self._bytes += size
        while self._bytes > self._limit:
            self._bytes -= self._frames.popitem(last=False)[1][1]

    def drop(self, address: FrameAddress) -> None:
        entry = self._frames.pop(address, None)
        if entry is not None:
            self._bytes -= entry[1]
