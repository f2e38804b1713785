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


class _Candidates(NamedTuple):
    """Columns of equal length: each document once."""

    docs: NDArray[np.int64]
    dense: NDArray[np.float64]  # nan: no vector
    words: NDArray[np.float64]


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
    vectors = np.asarray(dense_docs, np.int64), np.asarray(dense_scores, np.float64)
    words = np.asarray(word_docs, np.int64), np.asarray(word_scores, np.float64)
    if not len(vectors[0]):
        dense_weight, words_weight = 0.0, 1.0
    candidates = _united(*vectors, *words)
    best = candidates.words.max(initial=0.0)
    scores = dense_weight * np.where(np.isnan(candidates.dense), 0.0, candidates.dense)
    if best > 0.0:
        scores += candidates.words * (words_weight / best)
    return [
        Ranked(doc, score, None if dense != dense else dense, word)
        for doc, score, dense, word in _rows(candidates, scores, _best(candidates.docs, scores, k))
    ]


def _ascending(docs: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if (docs[1:] > docs[:-1]).all():
        return docs, scores
    order = docs.argsort()
    return docs[order], scores[order]


def _united(
    dense_docs: NDArray[np.int64],
    dense_scores: NDArray[np.float64],
    word_docs: NDArray[np.int64],
    word_scores: NDArray[np.float64],
) -> _Candidates:
    """Return the documents of both sides: those with a vector, ascending, then those with words alone, ascending."""
    dense_docs, dense_scores = _ascending(dense_docs, dense_scores)
    word_docs, word_scores = _ascending(word_docs, word_scores)
    place = np.searchsorted(dense_docs, word_docs)
    both = place < len(dense_docs)
    both[both] = dense_docs[place[both]] == word_docs[both]
    alone = ~both
    words = np.zeros(len(dense_docs))
    words[place[both]] = word_scores[both]
    without_vector = np.full(np.count_nonzero(alone), np.nan)
    return _Candidates(
        np.concatenate((dense_docs, word_docs[alone])),
        np.concatenate((dense_scores, without_vector)),
        np.concatenate((words, word_scores[alone])),
    )


def _best(docs: NDArray[np.int64], scores: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Return the places of the ``k`` highest scores, best first, equal ones by descending document number."""
    if k <= 0 or not len(scores):
        return np.empty(0, np.intp)
    places = np.arange(len(scores))
    if k < len(scores):
        lowest = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= lowest)  # all that tie for the last place too
    return places[np.lexsort((-docs[places], -scores[places]))][:k]


def _rows(
    candidates: _Candidates, scores: NDArray[np.float64], places: NDArray[np.intp]
) -> list[tuple[int, float, float, float]]:
    columns = (candidates.docs, scores, candidates.dense, candidates.words)
    return list(zip(*(column[places].tolist() for column in columns), strict=True))
