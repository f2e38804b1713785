"""A reader's vectors: those of pages where their owner has them; what it does not show, and all others, copied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mos_pipeline.memory.pages import FORGOTTEN, LOST
from mos_pipeline.memory.state import OWNERS, MemoryState
from mos_pipeline.runtime.attached_rows import PageRows
from mos_pipeline.runtime.vector_pool import VectorPool

__all__ = ["PageVectors"]

IN_PLACE = 1 << 62  # what the table of pages has for a row where it is one of the owner's


class PageVectors:
    """Both kinds of rows, searched as one.

    Attributes:
        copies: the rows of this process's own.
        in_place: how many pages are searched where the owner has their vectors.
    """

    def __init__(self, state: MemoryState, copies: VectorPool) -> None:
        self._state = state
        self._rows = PageRows.none()
        self.copies = copies
        self.in_place = 0

    def show(self, rows: PageRows) -> None:
        """Search pages in ``rows`` from now on, and need no copies of these; for whoever changes the state."""
        pages = self._state.pages
        seqs = np.arange(len(pages))
        shown = np.zeros(len(pages), bool)
        shown[: len(rows.found)] = rows.found
        shown[np.concatenate([pages.seqs_of(FORGOTTEN), pages.seqs_of(LOST)])] = False
        present = pages.rows_of(seqs)
        gained, lost = seqs[shown & (present != IN_PLACE)], seqs[~shown & (present == IN_PLACE)]
        copied = present[gained]
        self._rows = rows  # before their copies go
        pages.set_rows(gained, IN_PLACE)
        pages.set_rows(lost, -1)
        self.copies.release(copied[copied >= 0])
        self.in_place = int(shown.sum())

    def forget(self, seqs: npt.NDArray[np.int64]) -> None:
        """Let go of the copies of pages; for as long as they are still somebody's."""
        rows = self._state.pages.rows_of(seqs)
        self.copies.release(rows[(rows >= 0) & (rows != IN_PLACE)])

    def scores(self, owner: int, query: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the tags of an owner's rows and their products with ``query``, as ``VectorPool.scores``."""
        copied, copies = self.copies.scores(owner, query)
        rows = self._rows  # after the copies: what moves from there to here meanwhile is found twice, not never
        scope, kind = divmod(owner, OWNERS)
        if kind or scope < 0:
            return copied, copies
        shown, products = rows.scores(self._state.pages.seqs_of(scope), query)
        if len(copied):
            fresh = ~np.isin(shown, copied)
            shown, products = shown[fresh], products[fresh]
        return np.concatenate([copied, shown]), np.concatenate([copies, products])

    def close(self) -> None:
        """Let go of both; a search that is under way ends with what it has."""
        self._rows = PageRows.none()
        self.copies.close()
