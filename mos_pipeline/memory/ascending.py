"""Ascending columns of page numbers."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

__all__ = ["SeqMap", "column", "contains", "remove"]


def column() -> array[int]:
    """Return an empty column, 8 bytes an entry."""
    return array("q")


def contains(ascending: array[int], value: int) -> bool:
    """Return whether an ascending column holds ``value``."""
    at = bisect_left(ascending, value)
    return at < len(ascending) and ascending[at] == value


def remove(ascending: array[int], value: int) -> bool:
    """Remove ``value`` from an ascending column without repetitions; return whether it was there."""
    at = bisect_left(ascending, value)
    if at == len(ascending) or ascending[at] != value:
        return False
    del ascending[at]
    return True


class SeqMap:
    """A number for each of some pages, in two columns: 16 bytes a page, and quick where pages come in order."""

    __slots__ = ("_seqs", "_values")

    def __init__(self) -> None:
        self._seqs = column()
        self._values = column()

    def get(self, seq: int) -> int | None:
        """Return the number of page ``seq``, or None where it has none."""
        at = bisect_left(self._seqs, seq)
        return self._values[at] if at < len(self._seqs) and self._seqs[at] == seq else None

    def add(self, seq: int, value: int) -> bool:
        """Give page ``seq`` a number; return False, and change nothing, where it has one."""
        at = bisect_left(self._seqs, seq)
        if at < len(self._seqs) and self._seqs[at] == seq:
            return False
        self._seqs.insert(at, seq)
        self._values.insert(at, value)
        return True

    def fill(self, seqs: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        """Replace everything by these pages, all different, in any order, shape (n,), and their numbers, (n,)."""
        order = np.argsort(seqs, kind="stable")
        self._seqs = array("q", seqs[order].tobytes())
        self._values = array("q", values[order].tobytes())

    def remove(self, seqs: Collection[int]) -> None:
        """Take the numbers from these pages; one that has none is fine."""
        known = np.array(self._seqs, np.int64)
        others = ~np.isin(known, np.fromiter(seqs, np.int64, len(seqs)))
        self.fill(known[others], np.array(self._values, np.int64)[others])
