"""Pages that were forgotten and whose bytes are still on the disk."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

__all__ = ["DeadPages"]


class DeadPages:
    """Which pages are dead, and how much they are of all that the disk holds. Some 4 bytes for every page of the store.

    Not for several threads at once: its owner holds a lock.
    """

    __slots__ = ("_bytes", "_dead", "_dead_bytes", "_pages", "_sizes")

    def __init__(self) -> None:
        self._sizes = array("I")  # of each page's record, by page number; 0 where the disk holds none
        self._dead = list[int]()
        self._dead_bytes = 0
        self._pages = self._bytes = 0  # on the disk, dead ones included

    def __len__(self) -> int:
        return len(self._dead)

    @property
    def seqs(self) -> set[int]:
        """The dead pages."""
        return set(self._dead)

    @property
    def share(self) -> float:
        """How much of the store is dead, 0 to 1: of its pages, or of their records' bytes, whichever is more.

        A page takes as much of the disk as its record and a fixed amount beside (its vector): dead pages take no larger
        a share of both together than the larger of these two.
        """
        if not self._dead:
            return 0.0
        return max(len(self._dead) / self._pages, self._dead_bytes / max(self._bytes, 1))

    def enter(self, size: int) -> None:
        """Enter the next page, whose record has ``size`` bytes; 0: the number stands for no page."""
        self._sizes.append(size)
        self._pages += size > 0
        self._bytes += size

    def restore(self, sizes: Sequence[int], dead: Mapping[int, int]) -> None:
        """Enter the first pages, those of a store: ``sizes`` of kept ones, 0 for others; and sizes of the ``dead``."""
        self._sizes.extend(sizes)
        for seq, size in dead.items():
            self._sizes[seq] = size
        present = np.array(self._sizes, np.int64)
        self._pages, self._bytes = int(np.count_nonzero(present)), int(present.sum())
        self.add(dead)

    def add(self, seqs: Iterable[int]) -> None:
        """Note that pages are dead; each is named once."""
        for seq in seqs:
            self._dead.append(seq)
            self._dead_bytes += self._sizes[seq]

    def clear(self, seqs: Collection[int]) -> None:
        """Note that the bytes of dead pages are gone; pages that are not dead are passed over."""
        gone = [seq for seq in self._dead if seq in seqs]
        self._dead = [seq for seq in self._dead if seq not in seqs]
        for seq in gone:
            self._pages -= 1
            self._bytes -= self._sizes[seq]
            self._dead_bytes -= self._sizes[seq]
            self._sizes[seq] = 0
