"""Sets of sequence numbers as ranges: which pages are known already, which are missing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

__all__ = ["SeqRanges"]

Range = tuple[int, int]


class SeqRanges:
    """A growing set of integers, kept as sorted ranges [start, stop) that do not touch.

    A page may be met twice: in a segment and in the journal that was not removed in time, or in two frames where work
    was given out again. The first wins; ``add`` tells what is new.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> list[Range]:
        """Add [start, stop) and return the parts of it that were not in the set, ascending."""
        if start >= stop:
            return []
        if not self._stops or start > self._stops[-1]:
            self._starts.append(start)
            self._stops.append(stop)
            return [(start, stop)]
        if start == self._stops[-1]:
            self._stops[-1] = stop
            return [(start, stop)]
        return self._merge(start, stop)

    def _merge(self, start: int, stop: int) -> list[Range]:
        low, high = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        fresh, at = [], start
        for known_start, known_stop in zip(self._starts[low:high], self._stops[low:high], strict=True):
            if at < known_start:
                fresh.append((at, known_start))
            at = max(at, known_stop)
        if at < stop:
            fresh.append((at, stop))
        if low < high:
            start, stop = min(start, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high], self._stops[low:high] = [start], [stop]
        return fresh

    def __contains__(self, seq: int) -> bool:
        at = bisect_right(self._starts, seq) - 1
        return at >= 0 and seq < self._stops[at]

    def __len__(self) -> int:
        return sum(self._stops) - sum(self._starts)

    def ranges(self) -> list[Range]:
        """Return the set as ranges [start, stop), ascending."""
        return list(zip(self._starts, self._stops, strict=True))

    def holes(self) -> list[Range]:
        """Return the ranges [start, stop) of numbers, from 0 up to the highest in the set, that are not in it."""
        between = zip([0, *self._stops], self._starts, strict=False)
        return [(start, stop) for start, stop in between if start < stop]

    @property
    def end(self) -> int:
        """One more than the highest number; 0 for the empty set."""
        return self._stops[-1] if self._stops else 0
