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
from mos_pipeline.memory.state import BatchOutcome, MemoryState, Placed, Scope
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
    """Reads a store into memory: ``pages`` first, then, when pages can be accepted already, ``derive``.

    Attributes:
        without_vector: by scope number, pages whose batch was applied and whose vectors were lost with a damaged frame.
    """

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
        self._highest = -1
        self._sizes = array("I")
        self.without_vector: dict[int, list[int]] = {}

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
        while len(self._state.pages) <= self._highest:  # a new page must not inherit a lost one's vector
            self._lost_page()

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
                # Pages can be lost without a trace: a power cut may take a journal's end, and leave what came of it.
                # Batches need no look, as their pages have vectors.
                if kind != FrameKind.BATCH:
                    self._highest = max(self._highest, highest_page(kind, body))
        needless = set(self._store.journals())
        for seq, body, journal, offset in self._store.journaled_pages():
            if fresh_pages(self._known, seq, [body]):
                needless.discard(journal)
                yield _Found(seq, body, journal, offset)
        for journal in needless:
            self._store.retire(journal)

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

    def _kept(self, seq: int) -> bool:
        return 0 <= seq < len(self._sizes) and self._state.pages.scope(seq) != LOST

    def _set_aside(self, seq: int, reason: str) -> None:
        if self._kept(seq):
            self._state.scopes[self._state.pages.scope(seq)].aside[seq] = reason

    def _vectors(self, body: bytes, pool: VectorPool) -> None:
        frame = decode_vectors(body)
        # A page has a vector already where its frame was written twice: the writer was killed before it acknowledged.
        seqs = frame.seqs.tolist()
        wanted = [i for i, seq in enumerate(seqs) if self._kept(seq) and self._state.pages.row(seq) < 0]
        if not wanted:
            return
        scope = self._state.scopes[self._state.pages.scope(seqs[wanted[0]])]  # pages of one frame are of one scope
        rows = pool.allocate(scope.page_rows, len(wanted))
        pool.write(rows, frame.vectors[wanted])
        pool.commit(rows, frame.seqs[wanted])
        for i, row in zip(wanted, rows.tolist(), strict=True):
            self._state.pages.set_row(seqs[i], row)

    def _batch(self, body: bytes, pool: VectorPool, batched: npt.NDArray[np.bool_]) -> None:
        frame = decode_batch(body)
        seqs = [seq for seq in frame.seqs if self._kept(seq)]
        if not seqs or batched[seqs].any():  # all lost, or written twice
            return
        scope = self._state.scope(frame.user_id, frame.assistant_id)
        if not _joins_known(scope, frame.outcome.placed):
            return  # the session it joined was lost with a damaged frame: its pages are placed again
        batched[seqs] = True
        vectors = iter(frame.vectors)
        placed = [
            self._founded(scope, entry, next(vectors), pool) if entry.founded else entry
            for entry in frame.outcome.placed
        ]
        self._state.apply(scope, self._without_lost(frame.outcome._replace(placed=placed)))

    def _without_lost(self, outcome: BatchOutcome) -> BatchOutcome:
        if not self._state.pages.count_of(LOST):
            return outcome
        links = [
            (seq, before if self._kept(before) else -1)
            for seq, before in zip(outcome.seqs, outcome.links, strict=True)
            if self._kept(seq)
        ]
        return BatchOutcome(
            [seq for seq, _ in links],
            [before for _, before in links],
            [[seq, text] for seq, text in outcome.overviews if self._kept(seq)],
            [entry._replace(seqs=list(filter(self._kept, entry.seqs))) for entry in outcome.placed],
        )

    def _founded(self, scope: Scope, entry: Placed, vector: npt.NDArray[np.float16], pool: VectorPool) -> Placed:
        row = pool.allocate(scope.session_rows, 1)
        pool.write(row, vector[None])
        pool.commit(row, np.array([entry.session_id], np.int64))
        return entry._replace(row=int(row[0]))

    def _set_cursors(self, batched: npt.NDArray[np.bool_]) -> None:
        """Set where each scope's batches go on, what lies before that and lost its batch or vector, and the backlog."""
        backlog = 0
        for scope in self._state.scopes:
            seqs = np.array(self._state.pages.seqs_of(scope.number), np.int64)
            seqs = seqs[seqs < len(batched)]
            done = np.flatnonzero(batched[seqs])
            scope.given = int(done[-1]) + 1 if len(done) else 0
            scope.gaps = seqs[: scope.given][~batched[seqs[: scope.given]]].tolist()
            bare = [seq for seq in seqs.tolist() if self._state.pages.row(seq) < 0 and seq not in scope.aside]
            backlog += sum(self._sizes[seq] for seq in bare)
            if lost := [seq for seq in bare if batched[seq]]:
                self.without_vector[scope.number] = lost
        self._intake.add_backlog(backlog)


def _joins_known(scope: Scope, placed: list[Placed]) -> bool:
    """Whether every session that pages are placed in is founded here, or was before."""
    founded = set[int]()
    for entry in placed:
        if entry.founded:
            founded.add(entry.session_id)
        elif entry.session_id not in founded and scope.mid_term.get(entry.session_id) is None:
            return False
    return True
