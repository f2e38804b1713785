"""Another process's vectors of pages, searched where they lie: no vector is copied."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numkong
import numpy as np
import numpy.typing as npt

from mos_pipeline.runtime.extents import BLOCK
from mos_pipeline.runtime.shared_memory import attach_living
from mos_pipeline.runtime.slabs import HIDDEN, shown_slabs, tags_of, vectors_of

__all__ = ["AttachedRows", "PageRows"]

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]


class _Block(NamedTuple):
    """An attached block: its rows float16 (n, dimension), and their tags int64 (n,)."""

    name: str
    vectors: npt.NDArray[np.float16]
    tags: Rows


class _Span(NamedTuple):
    """Neighbouring rows of a block, and whose vectors they are to be: page numbers, HIDDEN for none; int64 (n,)."""

    block: _Block
    start: int
    pages: Rows


class AttachedRows:
    """The blocks that a store's owner shows; those of a dead owner for as long as they are of use. For one thread.

    A block of an owner that died before it was attached is left alone: its rows would be as good, but whoever opens the
    store next may sweep it away at any moment, and nobody would know how much memory is whose.
    """

    def __init__(self, path: Path, dimension: int, generation: int = 0) -> None:
        """Look at ``path`` for the names of blocks with vectors of this ``dimension`` and ``generation``."""
        self._path = path
        self._dimension = dimension
        self._generation = generation
        self._blocks: dict[str, _Block] = {}

    def look(self, pages: int) -> PageRows:
        """Return where the vectors of the first ``pages`` pages lie now."""
        shown = shown_slabs(self._path)
        alike = shown is not None and (shown.dimension, shown.generation) == (self._dimension, self._generation)
        names = shown.names if shown is not None and alike else []
        self._attach(name for name in names if name not in self._blocks)
        # The present owner's last: a page that a dead one's blocks hold too is taken from there.
        present = set(names)
        blocks = sorted(self._blocks.values(), key=lambda block: block.name in present)
        seen = PageRows(blocks, pages)
        self._blocks = {block.name: block for block in blocks if block.name in present or seen.uses(block)}
        return seen

    def _attach(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                data = attach_living(name)
            except OSError as error:  # closed meanwhile, or in a place that can't be seen from here
                logger.debug("%s: not attached: %s", name, error)
                continue
            if data is not None:
                self._blocks[name] = _Block(name, vectors_of(data, self._dimension), tags_of(data, self._dimension))

    def close(self) -> None:
        """Let go of the blocks, as soon as no search is in them."""
        self._blocks.clear()


class PageRows:
    """Where pages' vectors lay at one moment. Searched by any thread.

    Attributes:
        found: for each page, bool (n,), whether its vector lies in a block.
    """

    def __init__(self, blocks: Sequence[_Block], pages: int) -> None:
        """Read the tags of ``blocks``, the later ones first where a page is in two."""
        self._blocks = list(blocks)
        self._firsts = np.cumsum([0, *(len(block.tags) for block in blocks)])
        self._rows = np.full(pages, HIDDEN, np.int64)
        for block, first in zip(self._blocks, self._firsts.tolist(), strict=False):
            tags = block.tags.copy()
            inner = np.flatnonzero((tags >= 0) & (tags < pages))
            self._rows[tags[inner]] = first + inner
        self.found: npt.NDArray[np.bool_] = self._rows != HIDDEN

    @classmethod
    def none(cls) -> PageRows:
        """Return that no page's vector is anywhere."""
        return cls((), 0)

    def uses(self, block: _Block) -> bool:
        """Whether some page's vector lies in ``block``."""
        at = self._blocks.index(block) if block in self._blocks else -1
        first, last = self._firsts[at], self._firsts[at + 1]
        return bool(((self._rows >= first) & (self._rows < last)).any())

    def scores(self, pages: Rows, query: npt.ArrayLike) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Return which of ``pages`` have a vector here, and its dot product with ``query``, as ``VectorPool.scores``.

        ``pages`` are those of one owner: their rows lie together. What changed its place meanwhile is left out.
        """
        spans = self._spans(pages[pages < len(self._rows)])
        found, products = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for span in spans:
            mine, values = _search(span, np.ascontiguousarray(query, np.float16)[None])
            found.append(mine)
            products.append(values)
        return np.concatenate(found), np.concatenate(products)

    def _spans(self, pages: Rows) -> list[_Span]:
        """Return the stretches of whole blocks of 8 rows that hold ``pages``."""
        rows = self._rows[pages]
        pages, rows = pages[rows != HIDDEN], rows[rows != HIDDEN]
        order = np.argsort(rows, kind="stable")
        pages, rows = pages[order], rows[order]
        of_block = np.searchsorted(self._firsts, rows, "right") - 1
        # A new span where neighbours are more than a block apart, or in different slabs.
        edges = np.flatnonzero((np.diff(rows // BLOCK) > 1) | (np.diff(of_block) > 0)) + 1
        parts = zip(np.split(pages, edges), np.split(rows, edges), strict=True) if len(rows) else ()
        return [self._span(mine, where) for mine, where in parts]

    def _span(self, pages: Rows, rows: Rows) -> _Span:
        at = int(np.searchsorted(self._firsts, rows[0], "right")) - 1
        start = int(rows[0])
        expected = np.full(int(rows[-1]) - start + 1, HIDDEN, np.int64)
        expected[rows - start] = pages
        return _Span(self._blocks[at], start - int(self._firsts[at]), expected)


def _search(span: _Span, query: npt.NDArray[np.float16]) -> tuple[Rows, npt.NDArray[np.float32]]:
    block, start, expected = span
    stop = start + len(expected)
    before = block.tags[start:stop].copy()
    products = np.empty((1, len(expected)))
    numkong.cdist(query, block.vectors[start:stop], "dot", out=products)
    same = (expected != HIDDEN) & (before == expected) & (block.tags[start:stop] == expected)
    return expected[same], products[0, same].astype(np.float32)
