"""BM25 over pages, over windows and over sittings, all from the same postings.

BM25 after Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), without its constant
factor k1 + 1, so that a term adds at most its idf, ``ln(1 + (N - df + 0.5) / (df + 0.5))``, which is above 0 for a term
that every page holds too. N and df count pages for windows and sittings as well: a word is as rare as it is among
pages. A length is a sum of counts; the mean length of sittings is that of those with words.

A window is a page with what its neighbours of the same sitting lend it: the page right before or after it lends up to
``window_words`` of its words, the one beyond that what a page of its own length would have left over of them. A longer
page lends each word in that proportion, so its counts are fractions. Of a dialogue in short turns a window holds five,
of long articles hardly more than the page itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mos_pipeline.memory.postings import Matches

__all__ = ["Lengths", "Shape", "page_scores", "sitting_scores", "term_weights", "window_scores"]

CELLS = 1 << 17  # of a table of terms and pages: what fits the processor's cache
REACH = 2  # pages to each side that lend to a window
TINY = np.float32(1e-12)  # keeps 0 / 0 out where nothing saturates

Floats = NDArray[np.float32]


class Shape(NamedTuple):
    """The constants of the formula.

    Attributes:
        k1: how fast repeated terms saturate, 0 or more, in the unit of the counts.
        b: how much long documents are discounted, 0 to 1.
        window_words: words that a neighbour lends to a window, 0 or more, in the unit of the counts.
    """

    k1: float
    b: float
    window_words: float


class Lengths(NamedTuple):
    """Of n pages in s sittings: what each of them holds in words.

    Attributes:
        pages: float32 (n,).
        windows: float32 (n,).
        sittings: float32 (s,); 0 for a sitting without a word.
        sitting_of: the number of each page's sitting, ascending, uint32 (n,).
    """

    pages: Floats
    windows: Floats
    sittings: Floats
    sitting_of: NDArray[np.uint32]

    @classmethod
    def of(cls, pages: Floats, sitting_of: NDArray[np.uint32], window_words: float) -> Lengths:
        """Add up windows and sittings."""
        near, far = _lent(pages, window_words)
        windows = pages.copy()
        for distance, lent in ((1, pages * near), (2, pages * far)):
            together = sitting_of[distance:] == sitting_of[:-distance]
            windows[distance:] += lent[:-distance] * together
            windows[:-distance] += lent[distance:] * together
        sittings = np.bincount(sitting_of, pages).astype(np.float32)
        return cls(pages, windows, sittings, sitting_of)

    def extended(self, pages: Floats, sitting_of: NDArray[np.uint32], window_words: float) -> Lengths:
        """Return the lengths of ``pages``, which begin with these, having computed little more than what is new."""
        known = len(self.pages)
        if known < 4:
            return Lengths.of(pages, sitting_of, window_words)
        first = known - 4  # the last two windows may gain, and what they gain depends on two pages before them
        new = Lengths.of(pages[first:], sitting_of[first:] - sitting_of[first], window_words)
        sittings = np.zeros(int(sitting_of[-1]) + 1, np.float32)
        sittings[: len(self.sittings)] = self.sittings
        np.add.at(sittings, sitting_of[known:], pages[known:])
        return Lengths(pages, np.concatenate((self.windows[: first + 2], new.windows[2:])), sittings, sitting_of)


def term_weights(matches: Matches, terms: int, pages: int) -> NDArray[np.float64]:
    """Return the idf of each of the query's terms, float64 (terms,); 0 for one that no page holds."""
    frequency = np.bincount(matches.terms, matches.sizes, terms)
    weights: NDArray[np.float64] = np.log1p((pages - frequency + 0.5) / (frequency + 0.5))
    return np.where(frequency > 0, weights, 0.0)


def page_scores(matches: Matches, weights: NDArray[np.float64], lengths: Lengths, shape: Shape) -> Floats:
    """Return the BM25 score of every page, float32 (n,); 0 where it holds no term."""
    docs, counts = matches.docs.astype(np.intp), matches.counts.astype(np.float64)
    scores = np.repeat(weights[matches.terms], matches.sizes)
    scores *= counts
    scores /= counts + _saturation(lengths.pages, shape)[docs]
    # A page's postings arrive in the order of their terms however runs were merged, so its sum is the same.
    return np.bincount(docs, scores, len(lengths.pages)).astype(np.float32)


def sitting_scores(matches: Matches, weights: NDArray[np.float64], lengths: Lengths, shape: Shape) -> Floats:
    """Return the BM25 score of every page's sitting, float32 (n,)."""
    sittings = lengths.sitting_of[matches.docs].astype(np.intp)
    terms = np.repeat(matches.terms, matches.sizes)
    new = np.flatnonzero((np.diff(sittings) != 0) | (np.diff(terms) != 0)) + 1
    starts = np.concatenate((np.zeros(1, np.intp), new))  # of the stretches of one term in one sitting
    counts = np.add.reduceat(matches.counts.astype(np.float64), starts)
    sittings, weighed = sittings[starts], weights[terms[starts]]
    filled = lengths.sittings[lengths.sittings > 0]
    saturation = _saturation(lengths.sittings, shape, float(filled.mean()) if len(filled) else 0.0)
    scores = np.bincount(sittings, weighed * counts / (counts + saturation[sittings]), len(lengths.sittings))
    found: Floats = scores.astype(np.float32)[lengths.sitting_of]
    return found


def window_scores(matches: Matches, weights: NDArray[np.float64], lengths: Lengths, shape: Shape) -> Floats:
    """Return the BM25 score of every page's window, float32 (n,)."""
    pages = len(lengths.pages)
    width = pages + 2 * REACH  # what the first and the last pages lend beyond the end falls into a margin
    scores = np.zeros(pages, np.float32)
    saturation = _saturation(lengths.windows, shape)
    distinct, rows = np.unique(matches.terms, return_inverse=True)
    terms = np.repeat(rows, matches.sizes)
    at_once = max(1, min(len(distinct), CELLS // pages))
    cells, spare = np.empty(at_once * width, np.float32), np.empty((at_once, pages), np.float32)
    for first in range(0, len(distinct), at_once):
        low, high = np.searchsorted(terms, (first, first + at_once))
        docs, counts = matches.docs[low:high].astype(np.intp), matches.counts[low:high].astype(np.float32)
        cells[:] = 0.0
        _fill(cells, (terms[low:high] - first) * width + REACH + docs, docs, counts, lengths, shape.window_words)
        held = cells.reshape(at_once, width)[: len(distinct) - first, REACH:-REACH]
        held /= np.add(held, saturation, out=spare[: len(held)])
        scores += np.einsum("t,tp->p", weights[distinct[first : first + at_once]].astype(np.float32), held)
    return scores


def _fill(
    cells: Floats, places: NDArray[np.intp], docs: NDArray[np.intp], counts: Floats, lengths: Lengths, words: float
) -> None:
    """Put into ``cells`` what pages hold of their terms, and what they lend of it to those beside them.

    Each posting has a place of its own: so has what it lends to one side, and nothing is added twice there.
    """
    cells[places] = counts
    near, far = _lent(lengths.pages[docs], words)
    sittings = lengths.sitting_of[docs]
    for distance, part in ((-2, far), (-1, near), (1, near), (2, far)):
        together = lengths.sitting_of.take(docs + distance, mode="clip") == sittings
        cells[places + distance] += counts * part * together


def _saturation(lengths: Floats, shape: Shape, mean: float | None = None) -> Floats:
    """Return k1 · (1 - b + b · length / mean length)."""
    mean = float(lengths.mean()) if mean is None else mean
    found = lengths * np.float32(shape.k1 * shape.b / (mean or 1.0)) + np.float32(shape.k1 * (1.0 - shape.b))
    saturation: Floats = np.maximum(found, TINY)
    return saturation


def _lent(pages: Floats, window_words: float) -> tuple[Floats, Floats]:
    """Return which part of its words a page lends to its neighbour and to the page beyond, each (n,), 0 to 1."""
    parts = np.float32(window_words) / np.maximum(pages, np.float32(1.0))
    return np.minimum(parts, np.float32(1.0)), np.clip(parts - np.float32(1.0), np.float32(0.0), np.float32(1.0))
