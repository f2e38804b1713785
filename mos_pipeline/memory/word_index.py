"""Word search over the pages of one scope: postings in arrays, ranked by BM25.

Postings stand in a few runs, each sorted by term, and a small unsorted tail. A full tail is sorted into a run, together
with the runs before it that are not much larger (a log-structured merge), so a posting is sorted again only a
logarithmic number of times, and a search looks into few places.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mos_pipeline.errors import InputError

__all__ = ["WordIndex"]

TAIL = 2048  # postings; scanned by every search
MAX_RUN = 1 << 18  # postings; a larger merge would hold up its thread for more than some milliseconds


class _Postings(NamedTuple):
    """Columns of equal length; documents by position in the index, ascending for each term."""

    hashes: NDArray[np.uint32]
    docs: NDArray[np.uint32]
    counts: NDArray[np.uint8]

    def take(self, rows: slice | NDArray[np.intp]) -> _Postings:
        """Return the given rows of every column."""
        return _Postings(self.hashes[rows], self.docs[rows], self.counts[rows])


class _Matches(NamedTuple):
    """Postings of a query's terms: ``sizes[i]`` documents in a row for the query's term number ``terms[i]``."""

    terms: NDArray[np.intp]
    sizes: NDArray[np.intp]
    docs: NDArray[np.uint32]
    counts: NDArray[np.uint8]


class WordIndex:
    """The words of one scope's pages, and BM25 over them.

    Some 235 bytes for a page of 25 distinct terms, some 600 for an empty index. Not for several threads at once: its
    owner holds a lock.
    """

    __slots__ = ("_docs", "_lengths", "_runs", "_tail_counts", "_tail_docs", "_tail_hashes", "_total")

    def __init__(self) -> None:
        self._docs = array("q")
        self._lengths = array("I")
        self._total = 0
        self._runs: list[_Postings] = []
        self._tail_hashes = array("I")
        self._tail_docs = array("I")
        self._tail_counts = array("B")

    def __len__(self) -> int:
        """Return how many documents the index holds, those without a word included."""
        return len(self._docs)

    def add(self, doc: int, hashes: NDArray[np.uint32], counts: NDArray[np.uint8]) -> None:
        """Add one document.

        Args:
            doc: its number, above those of all before it.
            hashes: its distinct term hashes, ascending, shape (n,), uint32.
            counts: how often each term occurs, shape (n,), uint8.

        Raises:
            InputError: the number is not above the last one's, or the shapes differ; nothing was added.
        """
        if len(hashes) != len(counts):
            raise InputError(f"page {doc}: {len(hashes)} terms with {len(counts)} counts; give one count for each term")
        if self._docs and doc <= self._docs[-1]:
            raise InputError(f"page {doc} comes after page {self._docs[-1]}; add pages in the order of their numbers")
        counts_bytes = np.asarray(counts, np.uint8).tobytes()
        length = sum(counts_bytes)
        self._tail_docs.extend(array("I", [len(self._docs)]) * len(hashes))
        self._tail_hashes.frombytes(np.asarray(hashes, np.uint32).tobytes())
        self._tail_counts.frombytes(counts_bytes)
        self._docs.append(doc)
        self._lengths.append(length)
        self._total += length
        if len(self._tail_hashes) > TAIL:
            self._settle()

    def add_many(
        self, docs: ArrayLike, sizes: ArrayLike, hashes: NDArray[np.uint32], counts: NDArray[np.uint8]
    ) -> None:
        """Add many documents at once, to the same effect as ``add`` for each.

        Args:
            docs: their numbers, ascending, above those of all before them, shape (n,), int64.
            sizes: how many distinct terms each has, shape (n,).
            hashes: their term hashes, one document after the other, ascending within each, shape (sum of sizes,),
                uint32.
            counts: how often each term occurs in its document, shape (sum of sizes,), uint8.

        Raises:
            InputError: the numbers do not ascend, or the shapes don't fit; nothing was added.
        """
        docs, sizes = np.asarray(docs, np.int64), np.asarray(sizes, np.int64)
        self._check_many(docs, sizes, len(hashes), len(counts))
        positions = np.arange(len(self._docs), len(self._docs) + len(docs), dtype=np.uint32)
        counts = np.asarray(counts, np.uint8)
        lengths = np.diff(np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))[_bounds(sizes)])
        self._tail_docs.frombytes(np.repeat(positions, sizes).tobytes())
        self._tail_hashes.frombytes(np.asarray(hashes, np.uint32).tobytes())
        self._tail_counts.frombytes(counts.tobytes())
        self._docs.frombytes(docs.tobytes())
        self._lengths.frombytes(lengths.astype(np.uint32).tobytes())
        self._total += int(lengths.sum())
        if len(self._tail_hashes) > TAIL:
            self._settle()

    def search(
        self, query_hashes: NDArray[np.uint32], *, k1: float, b: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return every document that holds a term of the query, in ascending order, and its BM25 score, above 0.

        BM25 after Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), with the idf
        ``ln(1 + (N - df + 0.5) / (df + 0.5))``, which is above 0 for a term that every document holds too. A
        document's length is the sum of its counts.

        Args:
            query_hashes: term hashes, shape (q,), uint32; a repeated one counts once.
            k1: how fast repeated terms saturate, 0 or more.
            b: how much long documents are discounted, 0 to 1.

        Returns:
            documents, shape (m,), int64, and scores, shape (m,), float32.
        """
        query = np.unique(np.asarray(query_hashes, np.uint32))
        matches = self._matches(query)
        if matches is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = self._scores(matches, len(query), k1, b)
        matched = np.flatnonzero(scores > 0.0)
        return np.array(self._docs, np.int64)[matched], scores[matched].astype(np.float32)

    def _scores(self, matches: _Matches, query_terms: int, k1: float, b: float) -> NDArray[np.float64]:
        """Return the BM25 score of every document, by position; 0 where it holds no term."""
        documents, docs, counts = len(self._docs), matches.docs.astype(np.intp), matches.counts.astype(np.float64)
        frequency = np.bincount(matches.terms, matches.sizes, query_terms)
        idf = np.log1p((documents - frequency + 0.5) / (frequency + 0.5))
        saturation = np.array(self._lengths, np.float64)
        saturation *= k1 * b * documents / self._total
        saturation += k1 * (1.0 - b)
        weights = np.repeat((idf * (k1 + 1.0))[matches.terms], matches.sizes)
        weights *= counts
        weights /= counts + saturation[docs]
        # A document's postings arrive in the order of their hashes however runs were merged, so its sum is the same.
        return np.bincount(docs, weights, documents).astype(np.float64, copy=False)

    def _check_many(self, docs: NDArray[np.int64], sizes: NDArray[np.int64], hashes: int, counts: int) -> None:
        if docs.shape != sizes.shape or (sizes < 0).any() or not int(sizes.sum()) == hashes == counts:
            raise InputError(
                f"{len(docs)} pages with {len(sizes)} sizes of {int(sizes.sum())} terms in all, {hashes} hashes and "
                f"{counts} counts don't fit; give one size for each page, one hash and count for each term"
            )
        last = self._docs[-1] if self._docs else int(docs.min(initial=0)) - 1
        if (np.diff(docs, prepend=last) <= 0).any():
            raise InputError(f"page numbers do not ascend from {last}; add pages in the order of their numbers")

    def _tail(self) -> _Postings:
        """Return copies: a view would keep the arrays from growing for as long as it lives."""
        return _Postings(
            np.array(self._tail_hashes, np.uint32),
            np.array(self._tail_docs, np.uint32),
            np.array(self._tail_counts, np.uint8),
        )

    def _settle(self) -> None:
        tail = self._tail()
        for start in range(0, len(tail.hashes), MAX_RUN):
            self._add_run(tail.take(slice(start, start + MAX_RUN)))
        for column in (self._tail_hashes, self._tail_docs, self._tail_counts):
            del column[:]

    def _add_run(self, postings: _Postings) -> None:
        """Sort ``postings`` into a run and merge it with the runs before it that are at most twice as large."""
        parts, size = [_sorted(postings)], len(postings.hashes)
        while self._runs and len(self._runs[-1].hashes) <= min(2 * size, MAX_RUN - size):
            parts.append(self._runs.pop())
            size += len(parts[-1].hashes)
        self._runs.append(_merged(parts[::-1]))

    def _matches(self, query: NDArray[np.uint32]) -> _Matches | None:
        """Look up ``query`` (ascending, distinct) in all runs, oldest first, and in the tail; None where none match."""
        parts = [part for run in self._runs for part in _in_run(run, query)]
        if len(query) and len(self._tail_hashes):
            parts.append(_in_tail(self._tail(), query))
        terms, sizes, docs, counts = zip(*parts, strict=True) if parts else ((),) * 4
        if not any(map(len, docs)):
            return None
        return _Matches(np.concatenate(terms), np.concatenate(sizes), np.concatenate(docs), np.concatenate(counts))


def _bounds(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


def _in_run(run: _Postings, query: NDArray[np.uint32]) -> Iterator[_Matches]:
    low, high = np.searchsorted(run.hashes, query), np.searchsorted(run.hashes, query, "right")
    terms = np.flatnonzero(high > low)
    sizes = (high - low)[terms]
    for i, (start, stop) in enumerate(zip(low[terms].tolist(), high[terms].tolist(), strict=True)):
        yield _Matches(terms[i : i + 1], sizes[i : i + 1], run.docs[start:stop], run.counts[start:stop])


def _in_tail(tail: _Postings, query: NDArray[np.uint32]) -> _Matches:
    place = np.minimum(np.searchsorted(query, tail.hashes), len(query) - 1)
    hit = np.flatnonzero(query[place] == tail.hashes)
    return _Matches(place[hit], np.ones(len(hit), np.intp), tail.docs[hit], tail.counts[hit])


def _order(hashes: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return a stable sort's order by radix: numpy sorts 16-bit numbers stably in linear time, and no wider ones."""
    low = (hashes & np.uint32(0xFFFF)).astype(np.uint16).argsort(kind="stable")
    high = (hashes >> np.uint32(16)).astype(np.uint16)[low].argsort(kind="stable")
    return low[high]


def _sorted(postings: _Postings) -> _Postings:
    """Sort by term, documents ascending within each."""
    return postings.take(_order(postings.hashes))


def _merged(runs: list[_Postings]) -> _Postings:
    """Merge sorted runs, oldest first; numpy's stable sort of wide numbers is a merge sort that finds sorted parts."""
    if len(runs) == 1:
        return runs[0]
    hashes, docs, counts = zip(*runs, strict=True)
    joined = _Postings(np.concatenate(hashes), np.concatenate(docs), np.concatenate(counts))
    return joined.take(joined.hashes.argsort(kind="stable"))
