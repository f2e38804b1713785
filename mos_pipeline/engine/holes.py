"""Batches that restored pages have lost, made again one by one."""

from __future__ import annotations

import numpy as np

from mos_pipeline.memory.pages import PageTable
from mos_pipeline.memory.state import Scope

__all__ = ["Holes"]


class Holes:
    """Pages before a scope's last batch whose batch went with a damaged frame, or told of a page that was forgotten."""

    def __init__(self, pages: PageTable, capacity: int) -> None:
        """Give out at most ``capacity`` pages at once."""
        self._pages = pages
        self._capacity = capacity

    def of(self, scope: Scope) -> bool:
        """Return whether ``scope`` has any."""
        return bool(scope.gaps)

    def forget(self, scope: Scope, seqs: set[int]) -> None:
        """Leave out pages that belong to nobody any more."""
        scope.gaps = [seq for seq in scope.gaps if seq not in seqs]

    def take(self, scope: Scope) -> list[int]:
        """Take the next pages of a scope that has some.

        Neighbouring pages only: what lies between two gaps has its place in its chain already.
        """
        seqs = self._pages.seqs_of(scope.number)
        at, run = int(np.searchsorted(seqs, scope.gaps[0])), 1
        while run < min(self._capacity, len(scope.gaps)) and seqs[at + run] == scope.gaps[run]:
            run += 1
        gap, scope.gaps = scope.gaps[:run], scope.gaps[run:]
        return gap
