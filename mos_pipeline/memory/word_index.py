"""Word search over the pages of one scope: pages, windows and sittings from one set of postings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mos_pipeline.errors import InputError
from mos_pipeline.memory.bm25 import Lengths, Shape, page_scores, sitting_scores, term_weights, window_scores
from mos_pipeline.memory.columns import Column
from mos_pipeline.memory.postings import Matches, Postings, PostingStore, find

__all__ = ["WordIndex", "WordScores", "WordView"]

DEAD_SHARE = 4  # removed documents are purged when they are one in so many


class WordScores(NamedTuple):
    """BM25 of all n documents of an index, in ascending order; 0 where nothing matches.

    Attributes:
        docs: document numbers, int64 (n,).
        pages: of the documents themselves, float32 (n,).
        windows: of each with its neighbours, float32 (n,).
        sittings: of the sitting that each belongs to, float32 (n,).
        limit: what none of them can exceed, the idf of all the query's terms that occur; 0 where none does.
    """

    docs: NDArray[np.int64]
    pages: NDArray[np.float32]
    windows: NDArray[np.float32]
    sittings: NDArray[np.float32]
    limit: float


class WordView(NamedTuple):
    """An index as it was at one moment; it may be searched while the index changes, by any thread.

    Attributes:
        parts: its postings.
        docs: document numbers, int64 (n,).
        lengths: those of the n documents, which have no removed one among them.
        ranks: for each position that postings name, the document's place among the n, or -1 where it was removed,
            int64; None where places are positions.
        shape: the formula's constants.
    """

    parts: list[Postings]
    docs: NDArray[np.int64]
    lengths: Lengths
    ranks: NDArray[np.int64] | None
    shape: Shape

    def search(self, query_hashes: NDArray[np.uint32]) -> WordScores:
        """Return the scores of every document for a query: term hashes, shape (q,), a repeated one counts once."""
        query = np.unique(np.asarray(query_hashes, np.uint32))
        matches = self._matches(query)
        if matches is None:
            nothing = np.zeros(len(self.docs), np.float32)
            return WordScores(self.docs, nothing, nothing, nothing, 0.0)
        weights = term_weights(matches, len(query), len(self.docs))
        pages, windows, sittings = (
            scores(matches, weights, self.lengths, self.shape)
            for scores in (page_scores, window_scores, sitting_scores)
        )
        return WordScores(self.docs, pages, windows, sittings, float(weights.sum()))

    def _matches(self, query: NDArray[np.uint32]) -> Matches | None:
        matches = find(self.parts, query)
        if matches is None or self.ranks is None:
            return matches
        docs = self.ranks[matches.docs]
        kept = np.flatnonzero(docs >= 0)
        if not len(kept):
            return None
        sizes = np.bincount(np.repeat(matches.terms, matches.sizes)[kept])
        terms = np.flatnonzero(sizes)
        return Matches(terms, sizes[terms], docs[kept].astype(np.uint32), matches.counts[kept])


class WordIndex:
    """The words of one scope's pages, and BM25 over them.

    Some 245 bytes for a page of 25 distinct terms, some 1,000 for an empty index. Not for several threads at once: its
    owner holds a lock; but a ``view`` is searched without it.
    """

    __slots__ = ("_dead", "_docs", "_lengths", "_measured", "_postings", "_sittings")

    def __init__(self) -> None:
        self._docs = Column(np.int64)
        self._lengths = Column(np.float32)
        self._sittings = Column(np.uint32)
        self._postings = PostingStore()
        self._dead = set[int]()  # positions
        self._measured: tuple[float, Lengths] | None = None

    def __len__(self) -> int:
        """Return how many documents the index holds, those without a word included."""
        return len(self._docs) - len(self._dead)

    @property
    def last_sitting(self) -> int:
        """The number of the last document's sitting, -1 where there is none."""
        return self._sittings.last(-1)

    def add(self, doc: int, hashes: NDArray[np.uint32], counts: NDArray[np.uint8], sitting: int = 0) -> None:
        """Add one document.

        Args:
            doc: its number, above those of all before it.
            hashes: its distinct term hashes, ascending, shape (n,), uint32.
            counts: how often each term occurs, shape (n,), uint8, in any unit, the same for all documents.
            sitting: the number of its sitting, 0 or more and not below that of the document before it; few are skipped,
                as the index keeps a number for each.

        Raises:
            InputError: the number is not above the last one's, or the shapes differ; nothing was added.
        """
        if len(hashes) != len(counts):
            raise InputError(f"page {doc}: {len(hashes)} terms with {len(counts)} counts; give one count for each term")
        if doc <= (before := self._docs.last(-1)):
            raise InputError(f"page {doc} comes after page {before}; add pages in the order of their numbers")
        if sitting < self.last_sitting:
            raise InputError(f"page {doc}: sitting {sitting} comes after {self.last_sitting}; sittings do not descend")
        stored = np.asarray(counts, np.uint8).tobytes()
        self._postings.add(len(self._docs), np.asarray(hashes, np.uint32).tobytes(), stored)
        self._docs.append(doc)
        self._lengths.append(sum(stored))
        self._sittings.append(sitting)

    def add_many(
        self,
        docs: ArrayLike,
        sizes: ArrayLike,
        hashes: NDArray[np.uint32],
        counts: NDArray[np.uint8],
        sittings: ArrayLike | None = None,
    ) -> None:
        """Add many documents at once, to the same effect as ``add`` for each.

        Args:
            docs: their numbers, ascending, above those of all before them, shape (n,), int64.
            sizes: how many distinct terms each has, shape (n,).
            hashes: their term hashes, one document after the other, ascending within each, shape (sum of sizes,),
                uint32.
            counts: how often each term occurs in its document, shape (sum of sizes,), uint8.
            sittings: the numbers of their sittings, shape (n,); None: all of sitting 0.

        Raises:
            InputError: the numbers do not ascend, or the shapes don't fit; nothing was added.
        """
        docs, sizes = np.asarray(docs, np.int64), np.asarray(sizes, np.int64)
        sittings = np.zeros(len(docs), np.int64) if sittings is None else np.asarray(sittings, np.int64)
        self._check_many(docs, sizes, len(hashes), len(counts), sittings)
        positions = np.arange(len(self._docs), len(self._docs) + len(docs), dtype=np.uint32)
        counts = np.asarray(counts, np.uint8)
        lengths = np.diff(np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))[_bounds(sizes)])
        self._postings.extend(Postings(np.asarray(hashes, np.uint32), np.repeat(positions, sizes), counts))
        self._docs.extend(docs)
        self._lengths.extend(lengths)
        self._sittings.extend(sittings)

    def remove(self, docs: ArrayLike) -> None:
        """Remove documents, as if they had never been added; unknown ones are passed over.

        Their postings are dropped when a quarter of all documents is removed.
        """
        known, wanted = self._docs.view(), np.asarray(docs, np.int64)
        places = np.searchsorted(known, wanted)
        inside = places < len(known)
        places = places[inside]
        self._dead.update(places[known[places] == wanted[inside]].tolist())
        self._measured = None
        if len(self._dead) * DEAD_SHARE >= len(known):
            self._purge()

    def view(self, shape: Shape) -> WordView:
        """Return what ``WordView.search`` needs; that takes microseconds, but for what is new since the last time."""
        docs, ranks = self._docs.view(), None
        if self._dead:
            alive = self._alive()
            docs, ranks = docs[alive], np.where(alive, np.cumsum(alive) - 1, -1)
        return WordView(self._postings.parts(), docs, self._measure(shape.window_words), ranks, shape)

    def search(self, query_hashes: NDArray[np.uint32], shape: Shape) -> WordScores:
        """Return the scores of every document: ``view`` and ``WordView.search`` in one."""
        return self.view(shape).search(query_hashes)

    def _measure(self, window_words: float) -> Lengths:
        lengths, sittings = self._lengths.view(), self._sittings.view()
        if self._dead:
            alive = self._alive()
            lengths, sittings = lengths[alive], sittings[alive]
        if self._measured is None or self._measured[0] != window_words:
            measured = Lengths.of(lengths, sittings, window_words)
        elif len(self._measured[1].pages) < len(lengths):
            measured = self._measured[1].extended(lengths, sittings, window_words)
        else:
            return self._measured[1]
        self._measured = window_words, measured
        return measured

    def _alive(self) -> NDArray[np.bool_]:
        alive = np.ones(len(self._docs), bool)
        alive[list(self._dead)] = False
        return alive

    def _purge(self) -> None:
        """Drop the removed documents from all columns and postings."""
        alive = self._alive()
        self._postings.renumber(np.where(alive, np.cumsum(alive) - 1, -1))
        self._docs = Column(np.int64, self._docs.view()[alive])
        self._lengths = Column(np.float32, self._lengths.view()[alive])
        self._sittings = Column(np.uint32, self._sittings.view()[alive])
        self._dead.clear()

    def _check_many(
        self, docs: NDArray[np.int64], sizes: NDArray[np.int64], hashes: int, counts: int, sittings: NDArray[np.int64]
    ) -> None:
        fits = docs.shape == sizes.shape == sittings.shape and (sizes >= 0).all()
        if not fits or not int(sizes.sum()) == hashes == counts:
            raise InputError(
                f"{len(docs)} pages with {len(sizes)} sizes of {int(sizes.sum())} terms in all, {hashes} hashes, "
                f"{counts} counts and {len(sittings)} sittings don't fit; give one size and one sitting for each page, "
                "one hash and count for each term"
            )
        last = int(self._docs.view()[-1]) if len(self._docs) else int(docs.min(initial=0)) - 1
        if (np.diff(docs, prepend=last) <= 0).any():
            raise InputError(f"page numbers do not ascend from {last}; add pages in the order of their numbers")
        if (np.diff(sittings, prepend=max(self.last_sitting, 0)) < 0).any():
            raise InputError(f"sittings descend from {self.last_sitting}; a page's is not below that of the one before")


def _bounds(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
