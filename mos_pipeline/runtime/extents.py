"""Which rows are whose: the vector pool's bookkeeping, pure, some 10 bytes a row, not thread-safe.

Rows are numbered through all slabs. An owner's rows lie in extents, which grow with what it has: 8 rows first, then
about a quarter of its rows, at most 4096. What no extent covers are gaps, merged with their neighbours within a slab.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mos_pipeline.errors import InputError

__all__ = ["BLOCK", "FREE", "RETIRED", "TAKEN", "RowMap"]

Rows = npt.NDArray[np.int64]

# What a row's tag says where it is no page's number.
FREE, TAKEN, RETIRED = -1, -2, -3
BLOCK = 8  # rows; extents are made of whole blocks
LARGEST_EXTENT = 4096  # rows


@dataclass(slots=True, eq=False)
class _Extent:
    owner: int
    start: int
    rows: int
    free: int
    high: int = 0  # rows beyond it were never given out, and needn't be searched


@dataclass(slots=True)
class _Owned:
    extents: list[_Extent] = field(default_factory=list)
    rows: int = 0
    free: int = 0


class RowMap:
    """The bookkeeping itself.

    Args:
        slab_rows: rows of one slab, a multiple of 8.

    Attributes:
        used: rows that are given out.
        tags: int64, one a row: the tag it was committed under, or FREE, TAKEN, RETIRED. Replaced when it grows, so
            that who reads it without a lock keeps a consistent, if older, one.
    """

    def __init__(self, slab_rows: int) -> None:
        self.used = 0
        self.tags: Rows = np.empty(0, np.int64)
        self._blocks = np.empty(0, object)  # block number -> its extent
        self._slab_rows = slab_rows
        self._slabs = 0
        self._owned: dict[int, _Owned] = {}
        self._gaps: dict[int, int] = {}  # first row -> rows
        self._gap_ends: dict[int, int] = {}  # the row behind the gap -> first row

    def add_slab(self) -> None:
        """Take in the rows of one more slab."""
        start, self._slabs = self._slabs * self._slab_rows, self._slabs + 1
        end = start + self._slab_rows
        if end > self.tags.size:
            size = max(end, end * 9 // 8 // BLOCK * BLOCK)
            self.tags = np.concatenate([self.tags, np.full(size - self.tags.size, FREE, np.int64)])
            self._blocks = np.concatenate([self._blocks, np.empty(size // BLOCK - self._blocks.size, object)])
        self._add_gap(start, self._slab_rows)

    def take(self, owner: int, count: int) -> Rows | None:
        """Return rows, or None where another slab is needed first."""
        owned = self._owned.setdefault(owner, _Owned())
        while owned.free < count:
            if not self._grow(owner, owned, count - owned.free):
                return None
        taken, missing = [], count
        # The oldest first: the last was added because the others did not suffice, so none stays unused.
        for extent in owned.extents:
            if not missing:
                break
            if extent.free:
                taken.append(self._take_from(extent, missing))
                missing -= taken[-1].size
        owned.free -= count
        self.used += count
        return np.concatenate(taken) if taken else np.empty(0, np.int64)

    def commit(self, rows: Rows, tags: Rows) -> None:
        """Give taken rows their tags; InputError where that can't be."""
        if rows.shape != tags.shape or (tags < 0).any() or (self.tags[rows] != TAKEN).any():
            raise InputError(
                f"rows {rows.tolist()[:9]} can't be committed under tags {tags.tolist()[:9]}; each row needs one tag, 0"
                " or more, and must have come from allocate and not have been committed or released since"
            )
        self.tags[rows] = tags

    def retire(self, rows: Rows) -> None:
        """Take rows out of use, not yet to be given out again; InputError where they are not in use."""
        if np.isin(self.tags[rows], (FREE, RETIRED)).any() or np.unique(rows).size != rows.size:
            raise InputError(f"rows {rows.tolist()[:9]} can't be released: not all of them are given out; release once")
        self.tags[rows] = RETIRED
        self.used -= rows.size

    def reclaim(self, rows: Rows) -> None:
        """Make retired rows free; an extent that holds nothing any more becomes a gap."""
        self.tags[rows] = FREE
        for block, count in zip(*np.unique(rows // BLOCK, return_counts=True), strict=True):
            extent: _Extent = self._blocks[block]
            extent.free += int(count)
            self._owned[extent.owner].free += int(count)
            if extent.free == extent.rows:
                self._drop(extent)

    def trim(self, owner: int) -> None:
        """Give back the owner's extents that hold nothing."""
        owned = self._owned.get(owner, _Owned())
        for extent in [e for e in owned.extents if e.free == e.rows]:
            self._drop(extent)
        if not owned.extents:
            self._owned.pop(owner, None)

    def spans(self, owner: int) -> list[tuple[int, int]]:
        """Return the stretches of rows that hold all of an owner's: first row and how many."""
        owned = self._owned.get(owner)
        return [(e.start, e.high) for e in owned.extents if e.high] if owned else []

    def _take_from(self, extent: _Extent, most: int) -> Rows:
        tags = self.tags[extent.start : extent.start + extent.rows]
        spare = np.flatnonzero(tags == FREE)[:most]
        tags[spare] = TAKEN
        extent.free -= spare.size
        extent.high = max(extent.high, int(spare[-1]) + 1)
        return spare + extent.start

    def _grow(self, owner: int, owned: _Owned, missing: int) -> bool:
        wanted = min(max(missing, owned.rows // 4, BLOCK), LARGEST_EXTENT, self._slab_rows)
        wanted = -(-wanted // BLOCK) * BLOCK
        last = owned.extents[-1] if owned.extents else None
        behind = last.start + last.rows if last else -1
        if last and behind in self._gaps and behind % self._slab_rows:
            size = self._cut(behind, wanted)
            last.rows, last.free = last.rows + size, last.free + size
        else:
            gap = self._find_gap(wanted)
            if gap is None:
                return False
            size = self._cut(gap, wanted)
            last, behind = _Extent(owner, gap, size, size), gap
            owned.extents.append(last)
        self._blocks[behind // BLOCK : (behind + size) // BLOCK] = last
        owned.rows, owned.free = owned.rows + size, owned.free + size
        return True

    def _find_gap(self, wanted: int) -> int | None:
        """Return a gap's first row: one that is large enough, else the largest that is not much too small."""
        for start in reversed(self._gaps):
            if self._gaps[start] >= wanted:
                return start
        largest = max(self._gaps, key=self._gaps.__getitem__, default=-1)
        # A small gap would tear a large owner's rows apart: it waits for a smaller one.
        return largest if largest >= 0 and self._gaps[largest] >= wanted // 4 else None

    def _cut(self, start: int, most: int) -> int:
        size = self._gaps.pop(start)
        del self._gap_ends[start + size]
        if size > most:
            self._add_gap(start + most, size - most)
        return min(size, most)

    def _add_gap(self, start: int, size: int) -> None:
        behind = start + size
        if behind % self._slab_rows and behind in self._gaps:
            size += self._gaps.pop(behind)
        if start % self._slab_rows and start in self._gap_ends:
            before = self._gap_ends.pop(start)
            start, size = before, size + self._gaps.pop(before)
        self._gaps[start] = size
        self._gap_ends[start + size] = start

    def _drop(self, extent: _Extent) -> None:
        owned = self._owned[extent.owner]
        owned.extents.remove(extent)
        owned.rows, owned.free = owned.rows - extent.rows, owned.free - extent.rows
        self._blocks[extent.start // BLOCK : (extent.start + extent.rows) // BLOCK] = None
        if not owned.extents:
            del self._owned[extent.owner]
        self._add_gap(extent.start, extent.rows)
