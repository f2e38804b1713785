"""Filling memory from the store: pages at once, derived data in the background."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.frames import decode_aside, decode_batch, decode_vectors, highest_page
from mos_pipeline.engine.indexing import Indexing
from mos_pipeline.engine.intake import Accepted, Intake
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.memory.pages import LOST
from mos_pipeline.memory.state import MemoryState, Placed, Scope
from mos_pipeline.messages import decode_record
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.store.codec import FrameKind, unpack_pages
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.recovery import OpenStore, fresh_pages
from mos_pipeline.store.segments import FrameAddress
from mos_pipeline.store.seqs import SeqRanges

__all__ = ["PagesOutOfOrderError", "Restore"]

WORD_FRAMES_AT_ONCE = 16  # sorted together: some 4,000 pages, some milliseconds


class PagesOutOfOrderError(Exception):
    """Pages don't come in the order of their numbers."""


class _Found(NamedTuple):
    """A page's record, and the journal it lies in where no segment has it."""

    seq: int
    record: bytes
    journal: Journal | None = None
    offset: int = 0


class Restore:
    """Reads a store into memory: ``pages`` first, then, when pages can be accepted already, ``derive``."""

    def __init__(
        self,
        store: OpenStore,
        state: MemoryState,
        intake: Intake,
        reader: PageReader,
        persistence: Persistence,
        indexing: Indexing,
    ) -> None:
        self._store = store
        self._state = state
        self._intake = intake
        self._reader = reader
        self._persistence = persistence
        self._indexing = indexing
        self._known = SeqRanges()
        self._derived: list[FrameAddress] = []
        self._sizes = array("I")

    def pages(self, *, sort: bool = False) -> None:
        """Enter every page of segments and journals; note where derived data lies.

        Args:
            sort: hold all pages in memory and enter them in order. Needed only where a damaged frame's pages are still
                in a journal.

        Raises:
            PagesOutOfOrderError: a page came after one with a higher number; begin anew, with ``sort``.
        """
        found = self._found()
        for page in sorted(found, key=lambda page: page.seq) if sort else found:
            if page.seq < len(self._state.pages):
                raise PagesOutOfOrderError
            scope = self._page(page.seq, page.record)
            if page.journal is not None:
                self._persistence.page(page.seq, Accepted(scope, page.journal, page.offset, len(page.record)))
        if self._store.damage:
            self._keep_lost_numbers()

    def _found(self) -> Iterator[_Found]:
        """Yield each page once, where it is met first: segments before journals."""
        for kind, body, address in self._store.frames():
            if kind == FrameKind.PAGES:
                first, records = unpack_pages(body)
                for seq, record in fresh_pages(self._known, first, records):
                    yield _Found(seq, record)
                self._reader.persisted([PageFrame(first, len(records), address)])
            else:
                self._derived.append(address)
        needless = set(self._store.journals())
        for seq, body, journal, offset in self._store.journaled_pages():
            if fresh_pages(self._known, seq, [body]):
                needless.discard(journal)
                yield _Found(seq, body, journal, offset)
        for journal in needless:
            self._store.retire(journal)

    def _keep_lost_numbers(self) -> None:
        """Leave the numbers empty that derived data knows of: a new page must not inherit a lost one's vector."""
        last = -1
        for address in self._derived:
            kind, body = self._store.segments.read_frame(address)
            last = max(last, highest_page(kind, body))
        while len(self._state.pages) <= last:
            self._lost_page()

    def _lost_page(self) -> None:
        self._state.ids.register(None, len(self._state.pages))
        self._state.pages.append_lost()
        self._sizes.append(0)
        self._intake.skip()

    def _page(self, seq: int, record: bytes) -> Scope:
        fields = decode_record(record)
        scope = self._state.scope(fields.user_id, fields.assistant_id)
        while len(self._state.pages) < seq:  # damaged, and reported as such: its number stays empty
            self._lost_page()
        self._state.pages.append(seq, scope.number)
        self._sizes.append(len(record))
        self._intake.restore(scope, seq, fields)
        return scope

    def derive(self, pool: VectorPool | None, pause: Callable[[], bool]) -> bool:
        """Enter vectors, words and batches in the order of their writing.

        ``pause()`` is called after each frame; where it returns False, restoring is given up and False returned.
        """
        words: list[bytes] = []
        batched = np.zeros(len(self._sizes), bool)
        for address in self._derived:
            kind, body = self._store.segments.read_frame(address)
            if kind == FrameKind.ASIDE:
                self._set_aside(*decode_aside(body))
            elif kind == FrameKind.WORDS:
                words.append(body)
            elif pool is not None and kind == FrameKind.VECTORS:
                self._vectors(body, pool)
            elif pool is not None and kind == FrameKind.BATCH:
                self._batch(body, pool, batched)
            if not pause():
                return False
            if len(words) >= WORD_FRAMES_AT_ONCE:
                self._indexing.restore(words)
                words.clear()
        if words:
            self._indexing.restore(words)
        self._set_cursors(batched)
        return True

    def _set_aside(self, seq: int, reason: str) -> None:
        number = self._state.pages.scope(seq)
        if number != LOST:
            self._state.scopes[number].aside[seq] = reason

    def _vectors(self, body: bytes, pool: VectorPool) -> None:
        frame = decode_vectors(body)
        seqs = frame.seqs.tolist()
        if any(self._state.pages.row(seq) >= 0 for seq in seqs):
            return  # written twice: its writer was killed before it could acknowledge the first
        # Pages of one frame are of one scope; a whole frame of lost pages has no owner any more.
        number = self._state.pages.scope(seqs[0])
        if number == LOST:
            return
        scope = self._state.scopes[number]
        rows = pool.allocate(scope.page_rows, len(seqs))
        pool.write(rows, frame.vectors)
        pool.commit(rows, frame.seqs)
        for seq, row in zip(seqs, rows.tolist(), strict=True):
            self._state.pages.set_row(seq, row)

    def _batch(self, body: bytes, pool: VectorPool, batched: npt.NDArray[np.bool_]) -> None:
        frame = decode_batch(body)
        if batched[frame.seqs].any():
            return  # written twice
        batched[frame.seqs] = True
        vectors = iter(frame.vectors)
        scope = self._state.scope(frame.user_id, frame.assistant_id)
        placed = [
            self._founded(scope, entry, next(vectors), pool) if entry.founded else entry
            for entry in frame.outcome.placed
        ]
        self._state.apply(scope, frame.outcome._replace(placed=placed))

    def _founded(self, scope: Scope, entry: Placed, vector: npt.NDArray[np.float16], pool: VectorPool) -> Placed:
        row = pool.allocate(scope.session_rows, 1)
        pool.write(row, vector[None])
        pool.commit(row, np.array([entry.session_id], np.int64))
        return entry._replace(row=int(row[0]))

    def _set_cursors(self, batched: npt.NDArray[np.bool_]) -> None:
        """Set where each scope's batches go on, what lies before that and lost its batch, and the backlog."""
        backlog = 0
        for scope in self._state.scopes:
            seqs = np.array(self._state.pages.seqs_of(scope.number), np.int64)
            seqs = seqs[seqs < len(batched)]
            done = np.flatnonzero(batched[seqs])
            scope.given = int(done[-1]) + 1 if len(done) else 0
            scope.gaps = seqs[: scope.given][~batched[seqs[: scope.given]]].tolist()
            backlog += sum(
                self._sizes[seq] for seq in seqs.tolist() if self._state.pages.row(seq) < 0 and seq not in scope.aside
            )
        self._intake.add_backlog(backlog)
