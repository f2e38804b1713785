"""A growing column of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["Column"]

SPARE = 8  # one part in so many is kept free, so that growing seldom copies


class Column:
    """A column that grows at its end. Views stay valid and unchanged while it does."""

    __slots__ = ("_buffer", "_count")

    def __init__(self, dtype: DTypeLike, values: ArrayLike = ()) -> None:
        self._buffer: NDArray[Any] = np.array(values, dtype)
        self._count = len(self._buffer)

    def __len__(self) -> int:
        return self._count

    def append(self, value: float) -> None:
        """Add one value."""
        if self._count == len(self._buffer):
            self._grow(1)
        self._buffer[self._count] = value
        self._count += 1

    def extend(self, values: NDArray[Any]) -> None:
        """Add ``values``, shape (n,)."""
        stop = self._count + len(values)
        if stop > len(self._buffer):
            self._grow(len(values))
        self._buffer[self._count : stop] = values
        self._count = stop

    def last(self, default: int) -> int:
        """Return the last value of a column of whole numbers, ``default`` where there is none."""
        return int(self._buffer[self._count - 1]) if self._count else default

    def view(self) -> NDArray[Any]:
        """Return what is there now, shape (n,): read-only, no copy."""
        view = self._buffer[: self._count]
        view.flags.writeable = False
        return view

    def _grow(self, more: int) -> None:
        room = np.empty(self._count // SPARE + 4 + more, self._buffer.dtype)
        self._buffer = np.concatenate((self._buffer[: self._count], room))
