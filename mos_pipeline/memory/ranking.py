"""Joining the searches, by vector and by words, into one ranking; and MemoryOS's own search, to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mos_pipeline.memory.word_index import WordScores

__all__ = ["Dense", "Ranked", "Weights", "join", "two_level"]

# MemoryOS's constants (its retriever's defaults; arXiv 2506.06326).
TOP_SESSIONS = 5
LOWEST_COSINE = 0.1

MOST_SPREAD = 16  # a scope's page numbers spread over so many times as many: then they are sorted instead

Floats = NDArray[np.float32]


class Weights(NamedTuple):
    """What each part of a score counts, 0 or more; 0 switches the part off.

    Attributes:
        dense: the cosine of query and page.
        words: BM25 of the page.
        window: BM25 of the page with its neighbours.
        sitting: BM25 of the page's sitting.
    """

    dense: float
    words: float
    window: float
    sitting: float

    def without_dense(self) -> Weights:
        """Return the weights for a query without a vector: the words' own, or plain BM25 where those are all 0."""
        if self.words or self.window or self.sitting:
            return self._replace(dense=0.0)
        return Weights(0.0, 1.0, 0.0, 0.0)


class Ranked(NamedTuple):
    """A document that was found, with the parts of its score.

    Attributes:
        doc: its number.
        score: the joined score, higher is better; comparable within one answer only.
        dense: cosine of query and document; None where the document or the query has no vector.
        words: BM25 of query and document, not scaled; 0 where they share no word.
        window: BM25 of query and the document's window, not scaled.
        sitting: BM25 of query and the document's sitting, not scaled.
    """

    doc: int
    score: float
    dense: float | None
    words: float = 0.0
    window: float = 0.0
    sitting: float = 0.0


class Dense(NamedTuple):
    """A search by vector: distinct document numbers in any order, int64 (n,), and their cosines, finite, float (n,)."""

    docs: NDArray[np.int64]
    cosines: NDArray[np.floating]

    @classmethod
    def none(cls) -> Dense:
        """Return the search that found nothing."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float32))


def join(words: WordScores, dense: Dense, weights: Weights, *, k: int) -> list[Ranked]:
    """Return the best ``k`` documents of both searches together, best first; of equal scores the newer comes first.

    ``score = dense · cosine + (words · BM25 + window · window BM25 + sitting · sitting BM25) / limit``, where the limit
    is what a document that is full of the query's words would reach: a page that holds half of a question, by weight,
    counts at most a half, however poor the others are. A document without a vector counts 0 for its cosine. One that
    has no vector and matches in no part is not found. With no vector at all (the query's did not come in time) the
    words decide alone.

    Args:
        words: all documents of the scope.
        dense: those with a vector; the order of its entries does not matter.
        weights: of the parts.
        k: how many to return; fewer come where fewer were found.
    """
    if not len(dense.docs):
        weights = weights.without_dense()
    table = _table(words, dense)
    found = ~np.isnan(table.dense) | (table.words > 0.0) | (table.window > 0.0) | (table.sitting > 0.0)
    scores = np.where(found, _joined(table, weights, words.limit), -np.inf)
    return _ranked(table, scores, np.array(_best(table.docs, scores, k), np.int64))


def two_level(
    sessions: Sequence[NDArray[np.int64]],
    relevance: ArrayLike,
    dense: Dense,
    *,
    k: int,
) -> list[Ranked]:
    """Return the best ``k`` pages of the best sessions, as MemoryOS searches: by vectors alone, in two steps.

    The five sessions whose summaries are nearest to the query, of those with a cosine of 0.1 or more; then their pages,
    of those with a cosine of 0.1 or more.

    Args:
        sessions: pages of each session, int64 (n,).
        relevance: cosine of the query and each session's summary, shape (s,).
        dense: all pages with a vector.
        k: how many to return.
    """
    cosines = np.asarray(relevance, np.float64)
    best = [place for place in np.argsort(-cosines, kind="stable")[:TOP_SESSIONS] if cosines[place] >= LOWEST_COSINE]
    pages = np.concatenate([np.empty(0, np.int64), *(sessions[place] for place in best)])
    found = np.isin(dense.docs, pages) & (dense.cosines >= LOWEST_COSINE)
    scores = np.where(found, dense.cosines, -np.inf).astype(np.float32)
    return [
        Ranked(int(dense.docs[place]), float(scores[place]), float(scores[place]))
        for place in _best(dense.docs, scores, k)
    ]


class _Table(NamedTuple):
    """Both searches side by side, documents ascending; NaN for a cosine that is not there."""

    docs: NDArray[np.int64]
    dense: Floats
    words: Floats
    window: Floats
    sitting: Floats


def _table(words: WordScores, dense: Dense) -> _Table:
    parts = words.pages, words.windows, words.sittings
    among = _places_among(words.docs, np.asarray(dense.docs, np.int64))
    if among is not None:  # nearly always: words are found sooner than vectors
        known = _placed(among, dense.cosines, len(words.docs), np.nan)
        return _Table(words.docs, known, *parts)
    docs, cosines = _ascending(dense)
    both = np.concatenate((words.docs, docs))
    both.sort(kind="stable")  # a merge of two sorted halves
    both = both[np.concatenate((np.ones(1, bool), both[1:] != both[:-1]))]
    places = np.searchsorted(both, words.docs)
    return _Table(
        both,
        _placed(np.searchsorted(both, docs), cosines, len(both), np.nan),
        *(_placed(places, part, len(both), 0.0) for part in parts),
    )


def _places_among(known: NDArray[np.int64], docs: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return where ``docs`` stand in ``known``, ascending; None where one doesn't, or a table would be too large.

    By a table over the numbers: five times as fast as sorting, or as looking each up in a sorted column.
    """
    if not len(known) or not len(docs):
        return np.empty(0, np.int64) if not len(docs) else None
    first, numbers = known[0], int(known[-1] - known[0]) + 1
    if numbers > MOST_SPREAD * len(known) or docs.min() < first or docs.max() > known[-1]:
        return None
    if numbers == len(known):
        places: NDArray[np.int64] = docs - first
        return places
    table = np.full(numbers, -1, np.int64)
    table[known - first] = np.arange(len(known))
    places = table[docs - first]
    return places if (places >= 0).all() else None


def _placed(places: NDArray[np.intp], values: NDArray[np.floating], count: int, other: float) -> Floats:
    column = np.full(count, other, np.float32)
    column[places] = values
    return column


def _joined(table: _Table, weights: Weights, limit: float) -> Floats:
    scores = weights.dense * np.nan_to_num(table.dense, nan=0.0)
    if limit > 0.0:
        for weight, part in zip(weights[1:], table[2:], strict=True):
            scores += part * (weight / limit)
    return scores


def _ascending(dense: Dense) -> Dense:
    docs, cosines = np.asarray(dense.docs, np.int64), np.asarray(dense.cosines)
    if (docs[1:] > docs[:-1]).all():
        return Dense(docs, cosines)
    order = _order(docs)
    return Dense(docs[order], cosines[order])


def _order(docs: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the sorting order; by radix where two digits are enough: numpy sorts 16-bit numbers in linear time."""
    lowest = docs.min()
    if docs.max() - lowest >= 1 << 32:
        return docs.argsort(kind="stable")
    digits = (docs - lowest).astype(np.uint32)
    low = (digits & np.uint32(0xFFFF)).astype(np.uint16).argsort(kind="stable")
    high = (digits >> np.uint32(16)).astype(np.uint16)[low].argsort(kind="stable")
    order: NDArray[np.intp] = low[high]
    return order


def _best(docs: NDArray[np.int64], scores: Floats, k: int) -> list[int]:
    """Return the places of the ``k`` highest finite scores, best first, equal ones by descending document number."""
    if k <= 0:
        return []
    places = np.flatnonzero(scores >= _floor(scores, k))
    ranks = np.lexsort((-docs[places], -scores[places]))[:k]
    best: list[int] = places[ranks].tolist()
    return best


def _floor(scores: Floats, k: int) -> float:
    """Return a finite score that the ``k`` highest reach, and few others.

    Of the maxima of disjoint groups, the k-th highest is such a one: each of k groups holds a score as high. That is
    five times as fast as a partition of all scores.
    """
    groups = max(len(scores) // 64, 8 * k)
    lowest = float(np.finfo(np.float32).min)
    if len(scores) < 2 * groups:
        return lowest
    rows = len(scores) // groups
    maxima = scores[: rows * groups].reshape(rows, groups).max(axis=0)
    return max(lowest, float(np.partition(maxima, groups - k)[groups - k]))


def _ranked(table: _Table, scores: Floats, places: NDArray[np.int64]) -> list[Ranked]:
    docs, cosines, *parts = (column[places].tolist() for column in table)
    dense = (None if isnan(cosine) else cosine for cosine in cosines)
    return list(map(Ranked, docs, scores[places].tolist(), dense, *parts))
