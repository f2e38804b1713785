"""Filling memory with a store's pages: what must have happened before the first ``add``."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mos_pipeline.engine.intake import Accepted, Intake
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.memory.pages import FORGOTTEN
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.store.codec import FrameKind, unpack_pages
from mos_pipeline.store.folder import Damage
from mos_pipeline.store.heads import NO_SCOPE, PageHeads, heads_of
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.recovery import OpenStore
from mos_pipeline.store.segments import FrameAddress
from mos_pipeline.store.seqs import SeqRanges

__all__ = ["PagesOutOfOrderError", "Restore"]

logger = logging.getLogger(__name__)


class PagesOutOfOrderError(Exception):
    """Pages don't come in the order of their numbers."""


class _Run(NamedTuple):
    """Neighbouring pages, as far as opening has to know them; one alone, with its journal, where no segment has it."""

    first_seq: int
    heads: PageHeads
    sizes: list[int]
    journal: Journal | None = None
    offset: int = 0


class Restore:
    """Reads a store's pages into memory.

    Attributes:
        derived: where frames of derived data lie, in the order of their writing.
        sizes: bytes of each page's record, by page number; 0 for lost ones.
        forgotten: pages that a tombstone names: their bytes may still be there.
    """

    def __init__(
        self,
        store: OpenStore,
        state: MemoryState,
        intake: Intake,
        reader: PageReader,
        persistence: Persistence,
    ) -> None:
        self._store = store
        self._state = state
        self._intake = intake
        self._reader = reader
        self._persistence = persistence
        self._known = SeqRanges()
        self.derived: list[FrameAddress] = []
        self._highest = -1
        self.forgotten: set[int] = set()
        self.sizes = array("I")

    def pages(self, *, sort: bool = False) -> None:
        """Enter every page of segments and journals; note where derived data lies.

        Args:
            sort: hold all pages in memory and enter them in order. Needed only where a damaged frame's pages are still
                in a journal.

        Raises:
            PagesOutOfOrderError: a page came after one with a higher number; begin anew, with ``sort``.
        """
        runs = self._runs()
        for run in sorted(runs, key=lambda run: run.first_seq) if sort else runs:
            if run.first_seq < len(self._state.pages):
                raise PagesOutOfOrderError
            self._enter(run)
        while len(self._state.pages) <= self._highest:  # a new page must not inherit a lost one's vector
            self._lost_page()
        self._forget()
        self._fill_rings()

    def _runs(self) -> Iterator[_Run]:
        """Yield each page once, where it is met first: segments before journals."""
        for kind, last_page, body, address in self._store.frames():
            # Pages can be lost without a trace: a power cut may take a journal's end, and leave what came of it.
            self._highest = max(self._highest, last_page)
            if kind == FrameKind.PAGES:
                first, heads, records = unpack_pages(body)
                for start, stop in self._known.add(first, first + len(records)):
                    part = slice(start - first, stop - first)
                    yield _Run(start, heads.part(part.start, part.stop), list(map(len, records[part])))
                self._reader.persisted([PageFrame(first, len(records), address)])
            else:
                self.derived.append(address)
        needless = set(self._store.journals())
        for seq, body, journal, offset in self._store.journaled_pages():
            if self._known.add(seq, seq + 1):
                needless.discard(journal)
                try:
                    heads = heads_of([body])
                except (ValueError, TypeError) as error:  # it was never a page's record; it costs itself only
                    damage = Damage(journal.path, offset, RECORD_OVERHEAD + len(body), f"no page's record ({error})")
                    logger.error("%s, offset %d: %s", *damage[:2], damage.reason)
                    self._store.damage.append(damage)
                    continue
                yield _Run(seq, heads, [len(body)], journal, offset)
        for journal in needless:
            self._store.retire(journal)

    def _lost_page(self) -> None:
        self._state.pages.append_lost()
        self.sizes.append(0)
        self._intake.skip()

    def _enter(self, run: _Run) -> None:
        while len(self._state.pages) < run.first_seq:  # damaged, and reported as such: its number stays empty
            self._lost_page()
        scopes = [self._state.scope(user_id, assistant_id) for user_id, assistant_id in run.heads.scopes]
        numbers = np.array([scope.number for scope in scopes], np.uint32)
        places = np.frombuffer(run.heads.scope_of, "<u4")
        mine = np.full(len(places), FORGOTTEN, np.uint32)
        mine[places != NO_SCOPE] = numbers[places[places != NO_SCOPE]]
        self._state.pages.extend(mine)
        self.sizes.extend(run.sizes)
        self.forgotten.update(run.heads.forgotten)
        self._intake.restore(run.heads, len(run.sizes), self._is_gone)
        if run.journal is not None:
            scope = scopes[0] if scopes else None
            self._persistence.page(run.first_seq, Accepted(scope, run.journal, run.offset, run.sizes[0]))

    def _is_gone(self, seq: int) -> bool:
        return seq in self.forgotten or self._state.pages.scope(seq) == FORGOTTEN

    def _forget(self) -> None:
        """Take out what tombstones name; a page of theirs that was lost stays lost."""
        seqs = [seq for seq in self.forgotten if seq < len(self._state.pages)]
        self._state.pages.forget(seqs)
        for seq in self._state.pages.seqs_of(FORGOTTEN).tolist():
            self.sizes[seq] = 0
        self._state.ids.forget_all(set(self._state.pages.seqs_of(FORGOTTEN).tolist()))

    def _fill_rings(self) -> None:
        for scope in self._state.scopes:
            seqs = self._state.pages.seqs_of(scope.number)
            unbatched = len(seqs) % scope.ring.capacity
            scope.ring.restore(seqs[-scope.ring.capacity - unbatched :].tolist(), unbatched)
