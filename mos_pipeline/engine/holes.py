"""What was lost of the data derived from restored pages, given out again batch by batch."""

from __future__ import annotations

import numpy as np

from mos_pipeline.memory.pages import PageTable
from mos_pipeline.memory.state import Scope

__all__ = ["Holes"]


class Holes:
    """Pages before a scope's last batch whose batch, or whose vector, went with a damaged frame."""

    def __init__(self, pages: PageTable, capacity: int) -> None:
        """Give out at most ``capacity`` pages at once."""
        self._pages = pages
        self._capacity = capacity
        self._bare: dict[int, list[int]] = {}

    def restore(self, scope: Scope, bare: list[int]) -> None:
        """Note pages of ``scope`` that have their places in sessions, and lost their vectors."""
        if bare:
            self._bare[scope.number] = bare

    def of(self, scope: Scope) -> bool:
        """Return whether ``scope`` has any."""
        return bool(scope.gaps) or scope.number in self._bare

    def forget(self, scope: Scope, seqs: set[int]) -> None:
        """Leave out pages that belong to nobody any more."""
        scope.gaps = [seq for seq in scope.gaps if seq not in seqs]
        self.restore(scope, [seq for seq in self._bare.pop(scope.number, []) if seq not in seqs])

    def take(self, scope: Scope) -> tuple[list[int], bool]:
        """Take the next pages of a scope that has some; return them, and whether they are to make a batch."""
        if scope.gaps:
            return self._take_gap(scope), True
        bare = self._bare.pop(scope.number)
        self.restore(scope, bare[self._capacity :])
        return bare[: self._capacity], False

    def _take_gap(self, scope: Scope) -> list[int]:
        """Take neighbouring pages only: what lies between two gaps has its place in its chain already."""
        seqs = self._pages.seqs_of(scope.number)
        at, run = int(np.searchsorted(seqs, scope.gaps[0])), 1
        while run < min(self._capacity, len(scope.gaps)) and seqs[at + run] == scope.gaps[run]:
            run += 1
        gap, scope.gaps = scope.gaps[:run], scope.gaps[run:]
        return gap
