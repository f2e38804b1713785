"""Joining two searches, by vector and by words, into one ranking."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Ranked", "join"]


class Ranked(NamedTuple):
    """A document that was found.

    Attributes:
        doc: its number.
        score: the joined score, higher is better; comparable within one answer only.
        dense: cosine of query and document; None where the document or the query has no vector.
        words: BM25 of query and document, not scaled; 0 where they share no word.
    """

    doc: int
    score: float
    dense: float | None
    words: float


def join(
    dense_docs: ArrayLike,
    dense_scores: ArrayLike,
    word_docs: ArrayLike,
    word_scores: ArrayLike,
    *,
    dense_weight: float,
    words_weight: float,
    k: int,
) -> list[Ranked]:
    """Return the best ``k`` documents of both searches together, best first; of equal scores the newer comes first.

    ``score = dense_weight · cosine + words_weight · BM25 / (the query's highest BM25)``. A document without a vector,
    or without a word of the query, counts 0 on that side. With no vector at all (the query's did not come in time)
    the words decide alone, with weight 1. The order of the arguments' entries does not matter.

    Args:
        dense_docs: document numbers, distinct, in any order, shape (n,), int64.
        dense_scores: their cosines, finite, shape (n,), float.
        word_docs: document numbers, distinct, in any order, shape (m,), int64.
        word_scores: their BM25 scores, finite, 0 or more, shape (m,), float.
        dense_weight: 0 or more.
        words_weight: 0 or more.
        k: how many to return; fewer come where fewer were found.
    """
    dense = _ascending(np.asarray(dense_docs, np.int64), np.asarray(dense_scores, np.float64))
    words = _ascending(np.asarray(word_docs, np.int64), np.asarray(word_scores, np.float64))
    if not len(dense.docs):
        dense_weight, words_weight = 0.0, 1.0
    best = words.scores.max(initial=0.0)
    scaled = words.scores * (words_weight / best if best > 0.0 else 0.0)
    entries = _entries(dense.docs, dense_weight * dense.scores, words.docs, scaled)
    return [_ranked(dense, words, entries, place) for place in _best(entries, k)]


class _Side(NamedTuple):
    """One search's answer, documents ascending."""

    docs: NDArray[np.int64]
    scores: NDArray[np.float64]


class _Entries(NamedTuple):
    """Both answers as one, documents ascending.

    A document of both stands twice in a row: with the joined score, from the vectors, then with -inf, from the words.
    """

    docs: NDArray[np.int64]
    scores: NDArray[np.float64]
    origin: NDArray[np.intp]  # place in the vectors' answer followed by the words'


def _ascending(docs: NDArray[np.int64], scores: NDArray[np.float64]) -> _Side:
    if (docs[1:] > docs[:-1]).all():
        return _Side(docs, scores)
    order = _order(docs)
    return _Side(docs[order], scores[order])


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


def _entries(
    dense_docs: NDArray[np.int64],
    dense_scores: NDArray[np.float64],
    word_docs: NDArray[np.int64],
    word_scores: NDArray[np.float64],
) -> _Entries:
    docs = np.concatenate((dense_docs, word_docs))
    origin = docs.argsort(kind="stable")  # a merge of two sorted halves; of equal documents the vectors' comes first
    docs, scores = docs[origin], np.concatenate((dense_scores, word_scores))[origin]
    twins = np.flatnonzero(docs[1:] == docs[:-1])
    scores[twins] += scores[twins + 1]
    scores[twins + 1] = -np.inf
    return _Entries(docs, scores, origin)


def _best(entries: _Entries, k: int) -> list[int]:
    """Return the places of the ``k`` highest scores, best first, equal ones by descending document number."""
    if k <= 0:
        return []
    places = np.flatnonzero(entries.scores >= _floor(entries.scores, k))
    ranks = np.lexsort((-entries.docs[places], -entries.scores[places]))[:k]
    best: list[int] = places[ranks].tolist()
    return best


def _floor(scores: NDArray[np.float64], k: int) -> float:
    """Return a finite score that the ``k`` highest reach, and few others.

    Of the maxima of disjoint groups, the k-th highest is such a one: each of k groups holds a score as high. That is
    five times as fast as a partition of all scores.
    """
    groups = max(len(scores) // 64, 8 * k)
    lowest = float(np.finfo(np.float64).min)
    if len(scores) < 2 * groups:
        return lowest
    rows = len(scores) // groups
    maxima = scores[: rows * groups].reshape(rows, groups).max(axis=0)
    return max(lowest, float(np.partition(maxima, groups - k)[groups - k]))


def _ranked(dense: _Side, words: _Side, entries: _Entries, place: int) -> Ranked:
    doc, score = int(entries.docs[place]), float(entries.scores[place])
    with_vector = len(dense.docs)
    first = int(entries.origin[place])
    if first >= with_vector:
        return Ranked(doc, score, None, float(words.scores[first - with_vector]))
    cosine, twin = float(dense.scores[first]), place + 1
    if twin < len(entries.docs) and entries.docs[twin] == doc:
        return Ranked(doc, score, cosine, float(words.scores[entries.origin[twin] - with_vector]))
    return Ranked(doc, score, cosine, 0.0)
