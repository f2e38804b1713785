"""Postings of one scope: which document holds which term how often.

They stand in a few runs, each sorted by term, and a small unsorted tail. A full tail is sorted into a run, together
with the runs before it that are not much larger (a log-structured merge), so a posting is sorted again only a
logarithmic number of times, and a search looks into few places. A run is never changed once it is made.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Matches", "PostingStore", "Postings", "find"]

TAIL = 2048  # postings; scanned by every search
MAX_RUN = 1 << 18  # postings; a larger merge would hold up its thread for more than some milliseconds


class Postings(NamedTuple):
    """Columns of equal length; documents by position in the index, ascending for each term."""

    hashes: NDArray[np.uint32]
    docs: NDArray[np.uint32]
    counts: NDArray[np.uint8]

    def take(self, rows: slice | NDArray[np.intp]) -> Postings:
        """Return the given rows of every column."""
        return Postings(self.hashes[rows], self.docs[rows], self.counts[rows])


class Matches(NamedTuple):
    """Postings of a query's terms, term after term: ``sizes[i]`` documents, ascending, of term number ``terms[i]``."""

    terms: NDArray[np.intp]
    sizes: NDArray[np.intp]
    docs: NDArray[np.uint32]
    counts: NDArray[np.uint8]


class PostingStore:
    """Runs and tail. Not for several threads at once."""

    __slots__ = ("_runs", "_tail_counts", "_tail_docs", "_tail_hashes")

    def __init__(self) -> None:
        self._runs: list[Postings] = []
        self._tail_hashes = array("I")
        self._tail_docs = array("I")
        self._tail_counts = array("B")

    def __len__(self) -> int:
        """Return how many postings there are."""
        return sum(len(run.hashes) for run in self._runs) + len(self._tail_hashes)

    def add(self, position: int, hashes: bytes, counts: bytes) -> None:
        """Add the postings of one document, the last one so far: its distinct terms, uint32, and counts, uint8."""
        self._tail_docs.extend(array("I", (position,)) * len(counts))
        self._tail_hashes.frombytes(hashes)
        self._tail_counts.frombytes(counts)
        if len(self._tail_hashes) > TAIL:
            self._settle()

    def extend(self, postings: Postings) -> None:
        """Add the postings of many documents, one document after the other."""
        self._tail_docs.frombytes(postings.docs.tobytes())
        self._tail_hashes.frombytes(postings.hashes.tobytes())
        self._tail_counts.frombytes(postings.counts.tobytes())
        if len(self._tail_hashes) > TAIL:
            self._settle()

    def parts(self) -> list[Postings]:
        """Return runs, oldest first, and the unsorted tail: nothing that is done later changes them."""
        return [*self._runs, self._tail()]

    def renumber(self, positions: NDArray[np.int64]) -> None:
        """Give document ``i`` the position ``positions[i]``, ascending, or remove its postings where that is -1."""
        runs, tail = [_renumbered(run, positions) for run in self._runs], _renumbered(self._tail(), positions)
        self._runs = [run for run in runs if len(run.hashes)]
        self._clear_tail()
        self.extend(tail)

    def _tail(self) -> Postings:
        """Return copies: a view would keep the arrays from growing for as long as it lives."""
        return Postings(
            np.array(self._tail_hashes, np.uint32),
            np.array(self._tail_docs, np.uint32),
            np.array(self._tail_counts, np.uint8),
        )

    def _settle(self) -> None:
        tail = self._tail()
        for start in range(0, len(tail.hashes), MAX_RUN):
            self._add_run(tail.take(slice(start, start + MAX_RUN)))
        self._clear_tail()

    def _clear_tail(self) -> None:
        for column in (self._tail_hashes, self._tail_docs, self._tail_counts):
            del column[:]

    def _add_run(self, postings: Postings) -> None:
        """Sort ``postings`` into a run and merge it with the runs before it that are at most twice as large."""
        parts, size = [_sorted(postings)], len(postings.hashes)
        while self._runs and len(self._runs[-1].hashes) <= min(2 * size, MAX_RUN - size):
            parts.append(self._runs.pop())
            size += len(parts[-1].hashes)
        self._runs.append(_merged(parts[::-1]))


def find(parts: Sequence[Postings], query: NDArray[np.uint32]) -> Matches | None:
    """Look up ``query`` (ascending, distinct) in ``PostingStore.parts``; None where none of its terms match."""
    *runs, tail = parts
    found = [match for run in runs for match in _in_run(run, query)]
    if len(query) and len(tail.hashes):
        found.extend(_in_run(_sorted(_of_query(tail, query)), query))
    if not found:
        return None
    found.sort(key=lambda match: int(match.terms[0]))  # stable: of one term, the runs stay in their order
    terms, sizes, docs, counts = zip(*found, strict=True)
    return Matches(np.concatenate(terms), np.concatenate(sizes), np.concatenate(docs), np.concatenate(counts))


def _of_query(tail: Postings, query: NDArray[np.uint32]) -> Postings:
    place = np.minimum(np.searchsorted(query, tail.hashes), len(query) - 1)
    return tail.take(np.flatnonzero(query[place] == tail.hashes))


def _in_run(run: Postings, query: NDArray[np.uint32]) -> Iterator[Matches]:
    low, high = np.searchsorted(run.hashes, query), np.searchsorted(run.hashes, query, "right")
    terms = np.flatnonzero(high > low)
    sizes = (high - low)[terms]
    for i, (start, stop) in enumerate(zip(low[terms].tolist(), high[terms].tolist(), strict=True)):
        yield Matches(terms[i : i + 1], sizes[i : i + 1], run.docs[start:stop], run.counts[start:stop])


def _renumbered(postings: Postings, positions: NDArray[np.int64]) -> Postings:
    docs = positions[postings.docs]
    kept = np.flatnonzero(docs >= 0)
    return Postings(postings.hashes[kept], docs[kept].astype(np.uint32), postings.counts[kept])


def _order(hashes: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return a stable sort's order by radix: numpy sorts 16-bit numbers stably in linear time, and no wider ones."""
    low = (hashes & np.uint32(0xFFFF)).astype(np.uint16).argsort(kind="stable")
    high = (hashes >> np.uint32(16)).astype(np.uint16)[low].argsort(kind="stable")
    return low[high]


def _sorted(postings: Postings) -> Postings:
    """Sort by term, documents ascending within each."""
    return postings.take(_order(postings.hashes))


def _merged(runs: list[Postings]) -> Postings:
    """Merge sorted runs, oldest first; numpy's stable sort of wide numbers is a merge sort that finds sorted parts."""
    if len(runs) == 1:
        return runs[0]
    hashes, docs, counts = zip(*runs, strict=True)
    joined = Postings(np.concatenate(hashes), np.concatenate(docs), np.concatenate(counts))
    return joined.take(joined.hashes.argsort(kind="stable"))
