"""Vectors in shared memory: float16 rows in slabs, one owner's rows lying together.

Rows are numbered through all slabs. ``allocate`` hands rows out, another process fills them, and ``commit`` gives each
its tag, from which moment ``scores`` finds it: the message that a row is written is the commit, so no flag in shared
memory needs ordering. A released row is given out again only when every search that began before has ended.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numkong
import numpy as np
import numpy.typing as npt

from mos_pipeline.errors import ClosedError, StoreFullError
from mos_pipeline.runtime.extents import BLOCK, RowMap
from mos_pipeline.runtime.shared_memory import Slab
from mos_pipeline.runtime.slabs import (
    HIDDEN,
    ShownSlabs,
    hide_slabs,
    row_bytes,
    show_slabs,
    tags_of,
    vectors_of,
)

__all__ = ["PoolUsage", "VectorPool"]

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]


class PoolUsage(NamedTuple):
    """How full a pool is: rows and bytes given out, rows and bytes there are, and where they lie."""

    used: int
    allocated: int
    used_bytes: int
    allocated_bytes: int
    slabs: int
    file_backed: bool


class VectorPool:
    """A growing pool of ``dimension``-wide float16 rows; every method may be called from any thread.

    Args:
        dimension: width of a vector.
        slab_bytes: size of one block of shared memory, rounded down to whole blocks of 8 rows, at least one.
        fallback: folder for file-backed slabs where /dev/shm has no room; without it that is an error.
        private: whether the rows are this process's alone: in no block that another could attach.
        shown: a file that tells readers of the slabs, see ``slabs``; without it they are for those who are told.
        generation: which of the store's models made the vectors; told there too.

    Raises:
        ClosedError: from every method but ``close``, after ``close``.
    """

    def __init__(
        self,
        dimension: int,
        slab_bytes: int,
        fallback: Path | None = None,
        *,
        private: bool = False,
        shown: Path | None = None,
        generation: int = 0,
    ) -> None:
        self._dimension = dimension
        self._slab_rows = max(BLOCK, slab_bytes // row_bytes(dimension) // BLOCK * BLOCK)
        self._fallback = fallback
        self._private = private
        self._shown = shown
        self._generation = generation
        self._showing = threading.Lock()
        self._file_backed = False
        self._slabs: list[Slab] = []
        self._vectors: list[Vectors] = []
        self._shown_tags: list[Rows] = []  # of each slab; none where nobody is shown them
        self._map = RowMap(self._slab_rows)
        self._lock = threading.Condition()
        self._closed = False
        self._ticket = 0  # the latest search's
        self._running: set[int] = set()
        self._retired: deque[tuple[int, Rows]] = deque()
        self._watcher: Callable[[Iterable[int]], None] | None = None
        if shown is not None:
            hide_slabs(shown)  # a dead owner's

    def watch(self, gone: Callable[[Iterable[int]], None]) -> None:
        """Have ``gone(rows)`` called for rows that are given back, before they can be given out again.

        It must be quick, and not use the pool.
        """
        self._watcher = gone

    def allocate(self, owner: int, count: int) -> Rows:
        """Return ``count`` row numbers, int64 (count,), for the owner with this key.

        Raises:
            StoreFullError: no block can be created; nothing was given out.
        """
        while True:
            with self._lock:
                self._check_open()
                rows = self._map.take(owner, count)
            if rows is not None:
                return rows
            self._add_slab(owner)

    def address(self, row: int) -> tuple[str, int]:
        """Return the name of the row's slab, for ``shared_memory.attach``, and its row number in there."""
        slab, inner = divmod(row, self._slab_rows)
        return self._slabs[slab].name, inner

    def commit(self, rows: npt.ArrayLike, tags: npt.ArrayLike, *, shown: bool = False) -> None:
        """Make written rows searchable under ``tags``, int64 (n,), not negative.

        ``shown``: for readers too, who know a row by its tag alone: nothing else may ever have it, but the same again.

        Raises:
            InputError: a row is not one that was given out and waits for this; nothing was committed.
        """
        numbers, values = np.asarray(rows, np.int64), np.asarray(tags, np.int64)
        with self._lock:
            self._check_open()
            self._map.commit(numbers, values)
            if shown:
                self._show_tags(numbers, values)

    def _show_tags(self, rows: Rows, tags: Rows) -> None:
        if self._shown_tags:
            for slab, which, inner in self._by_slab(rows):
                self._shown_tags[slab][inner] = tags[which]

    def release(self, rows: npt.ArrayLike) -> None:
        """Give rows back, committed or not. Nothing may write to them any more.

        Raises:
            InputError: a row is not given out; nothing was released.
        """
        numbers = np.asarray(rows, np.int64)
        with self._lock:
            self._check_open()
            self._retire(numbers)

    def free(self, owner: int) -> None:
        """Release every committed row of an owner.

        Rows that wait for their commit stay with whoever has them filled, since a writer may still be at them:
        ``release`` them when it has ended.
        """
        with self._lock:
            spans = self._map.spans(owner)
        for start, count in spans:  # one at a time, so that nobody waits long for the lock
            with self._lock:
                self._check_open()
                self._retire(start + np.flatnonzero(self._map.tags[start : start + count] >= 0))

    def write(self, rows: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Write ``vectors``, float16 (n, dimension), into rows that were given out, for restoring a store."""
        numbers, values = np.asarray(rows, np.int64), np.asarray(vectors, np.float16)
        with self._search() as views:
            for slab, which, inner in self._by_slab(numbers):
                views[slab][inner] = values[which]

    def read(self, rows: npt.ArrayLike) -> Vectors:
        """Return a copy of rows, float16 (n, dimension)."""
        numbers = np.asarray(rows, np.int64)
        found = np.empty((numbers.size, self._dimension), np.float16)
        with self._search() as views:
            for slab, which, inner in self._by_slab(numbers):
                found[which] = views[slab][inner]
        return found

    def scores(self, owner: int, query: npt.ArrayLike) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Return the tags, int64 (n,), of an owner's committed rows and their dot products with ``query``, float32.

        ``query`` is (dimension,), taken as float16; for rows and a query of length 1 the product is the cosine. The
        rows are read in place, without the lock and, in the kernel, without the interpreter's.
        """
        wanted = np.ascontiguousarray(query, np.float16).reshape(1, self._dimension)
        with self._search() as views:
            with self._lock:
                spans, tags = self._map.spans(owner), self._map.tags
            total = sum(count for _, count in spans)
            # The kernel's own float64: having it write float32 makes it five times slower.
            products, found = np.empty((1, total)), np.empty(total, np.int64)
            at = 0
            for start, count in spans:
                slab, inner = divmod(start, self._slab_rows)
                # Tags before products: a row that is committed in between is then left out, not half read.
                found[at : at + count] = tags[start : start + count]
                numkong.cdist(wanted, views[slab][inner : inner + count], "dot", out=products[:, at : at + count])
                at += count
        committed = found >= 0
        if not committed.all():  # picking costs a third of what the kernel does
            found, products = found[committed], products[:, committed]
        return found, products[0].astype(np.float32)

    @property
    def usage(self) -> PoolUsage:
        """How full the pool is."""
        used, allocated, width = self._map.used, len(self._slabs) * self._slab_rows, 2 * self._dimension
        return PoolUsage(used, allocated, used * width, allocated * width, len(self._slabs), self._file_backed)

    def close(self) -> None:
        """Wait for running searches and remove every slab. Idempotent."""
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: not self._running)
            self._vectors.clear()  # in place: a search that has just ended may still hold the list
            self._shown_tags.clear()
            slabs, self._slabs = self._slabs, []
        if self._shown is not None and slabs:
            hide_slabs(self._shown)
        for slab in slabs:
            slab.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the vector pool is closed; open the store again")

    def _search(self) -> _Search:
        return _Search(self)

    def _begin(self) -> tuple[int, list[Vectors]]:
        with self._lock:
            self._check_open()
            self._ticket += 1
            self._running.add(self._ticket)
            return self._ticket, self._vectors

    def _end(self, ticket: int) -> None:
        with self._lock:
            self._running.remove(ticket)
            self._reclaim()
            self._lock.notify_all()

    def _retire(self, rows: Rows) -> None:
        if not rows.size:  # most batches replace nothing
            return
        self._map.retire(rows)
        if self._watcher is not None:
            self._watcher(rows.tolist())
        self._show_tags(rows, np.full(len(rows), HIDDEN))
        self._retired.append((self._ticket, rows))
        self._reclaim()

    def _reclaim(self) -> None:
        oldest = min(self._running, default=self._ticket + 1)
        while self._retired and self._retired[0][0] < oldest:
            self._map.reclaim(self._retired.popleft()[1])

    def _add_slab(self, owner: int) -> None:
        try:
            slab = self._new_slab()  # outside the lock: reserving its pages takes a millisecond or more
        except StoreFullError:
            with self._lock:
                self._map.trim(owner)
            raise
        with self._lock:
            closed = self._closed
            if not closed:
                self._slabs.append(slab)
                self._vectors.append(vectors_of(slab.data, self._dimension))
                if self._shown is not None:
                    self._shown_tags.append(tags_of(slab.data, self._dimension))
                    self._shown_tags[-1][:] = HIDDEN
                self._map.add_slab()
        if closed:
            slab.close()
        elif self._shown is not None:
            self._show(self._shown)

    def _show(self, path: Path) -> None:
        with self._showing:
            with self._lock:
                names = [slab.name for slab in self._slabs]
            try:
                show_slabs(path, ShownSlabs(self._dimension, names, self._generation))
            except OSError as error:
                logger.warning("%s: readers are not told of new vectors, and copy them: %s", path, error)

    def _new_slab(self) -> Slab:
        size = self._slab_rows * row_bytes(self._dimension)
        if self._private:
            return Slab.private(size)
        if not self._file_backed:
            try:
                return Slab.create(size)
            except StoreFullError as error:
                if self._fallback is None:
                    raise
                self._file_backed = True
                logger.warning("%s; new vectors go to files in %s, which is slower", error, self._fallback)
        return Slab.create_file(size, self._fallback or Path())

    def _by_slab(self, rows: Rows) -> list[tuple[int, Rows | slice, Rows]]:
        """Split row numbers by slab: its number, which of ``rows`` lie there, and their row numbers in there."""
        if rows.size and (first := int(rows.min()) // self._slab_rows) == int(rows.max()) // self._slab_rows:
            return [(first, slice(None), rows - first * self._slab_rows)]  # as a batch's rows do, nearly always
        slabs = rows // self._slab_rows
        groups = [(int(slab), np.flatnonzero(slabs == slab)) for slab in np.unique(slabs)]
        return [(slab, which, rows[which] - slab * self._slab_rows) for slab, which in groups]


class _Search:
    """The time in which rows are read: what is released meanwhile is not given out again before its end."""

    def __init__(self, pool: VectorPool) -> None:
        self._pool = pool

    def __enter__(self) -> list[Vectors]:
        self._ticket, views = self._pool._begin()
        return views

    def __exit__(self, *_: object) -> None:
        self._pool._end(self._ticket)
