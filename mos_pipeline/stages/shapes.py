"""In which shapes a batch is computed: few different ones, and of about equal cost for those who share the work.

A runtime makes code for each shape, texts by word pieces, when it first meets it, and in each of its streams; for int8
weights that takes several times as long as the computing. So texts are filled up to one of a few lengths, and with
empty ones to one of a few numbers of texts. Which parts are the cheapest is found by dynamic programming.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["PART_PIECES", "Part", "filled_count", "filled_length", "parts_of"]

PART_PIECES = 640  # larger parts leave the caches: their processor time for a text grows
PART_COST = 32  # word pieces that take as long as what a part costs however small it is
LEAST_PART = 4  # texts: a batch is not divided into smaller parts for the sake of streams
MARGIN = 1.1  # a stream may have so much more than its share, or a small rest would make one part more
LEAST_STEP = 8  # word pieces
STEPS = 4  # lengths from one power of two to the next


class Part(NamedTuple):
    """A run of a batch's texts, and the shape that it is computed in.

    Attributes:
        start: the place of the first text in the batch, ``stop`` the one behind the last.
        texts: how many are computed, those that only fill up included.
        length: of each, word pieces.
    """

    start: int
    stop: int
    texts: int
    length: int

    @property
    def pieces(self) -> int:
        """Word pieces that are computed."""
        return self.texts * self.length


def filled_length(length: int) -> int:
    """Return the number of word pieces that a text of ``length`` is filled up to."""
    length = max(length, 1)
    step = max(LEAST_STEP, (1 << (length - 1).bit_length()) // (2 * STEPS))
    return -(-length // step) * step


def filled_count(count: int) -> int:
    """Return the number of texts that ``count`` of them are filled up to: the next power of two."""
    return 1 << (count - 1).bit_length()


def parts_of(lengths: Sequence[int], streams: int) -> list[Part]:
    """Divide a batch, ascending by length, for ``streams`` that work side by side.

    Returns:
        parts in the batch's order, that together cost the least.
    """
    filled = list(map(filled_length, lengths))
    share = _share(filled, streams)
    least, starts = [0], [0]  # what the first texts cost, and where the last part of them starts
    for stop, length in enumerate(filled, 1):
        limit = min(PART_PIECES, max(share, LEAST_PART * length))  # of word pieces, empty texts not counted
        first = max(0, stop - max(1, int(limit // length)))
        costs = ((least[start] + filled_count(stop - start) * length, start) for start in range(first, stop))
        cost, start = min(costs)
        least.append(cost + PART_COST)
        starts.append(start)
    parts, stop = list[Part](), len(filled)
    while stop:
        start = starts[stop]
        parts.append(Part(start, stop, filled_count(stop - start), filled[stop - 1]))
        stop = start
    return parts[::-1]


def _share(filled: Sequence[int], streams: int) -> float:
    """Return how many word pieces a part should have, so that each stream gets as many parts as the others."""
    total = sum(filled)
    rounds = math.ceil(total / (streams * PART_PIECES))
    return MARGIN * total / (streams * rounds)
