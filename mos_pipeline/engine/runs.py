"""Pages as a store gives them out, in runs, and entering these into the columns: for its owner and for readers."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mos_pipeline.engine.register import Register
from mos_pipeline.errors import StoreDamagedError
from mos_pipeline.memory.pages import FORGOTTEN
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.store.codec import FrameKind, unpack_pages
from mos_pipeline.store.folder import Damage
from mos_pipeline.store.heads import NO_SCOPE, PageHeads, heads_of
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.recovery import JournaledPage, StoredFrame
from mos_pipeline.store.seqs import SeqRanges

__all__ = ["PageEntry", "Run", "Runs"]

logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """Neighbouring pages, as far as opening has to know them; one alone, with its journal, where no segment has it.

    ``sizes`` are bytes of the pages' records, ``offset`` is where in its journal the one alone begins.
    """

    first_seq: int
    heads: PageHeads
    sizes: list[int]
    journal: Journal | None = None
    offset: int = 0


class Runs:
    """Makes runs of what a store gives out: each page once, where it is met first.

    Attributes:
        highest: the highest page that was met or spoken of; -1 before the first.
        in_journals: the journals that hold pages no segment has.
    """

    def __init__(self, reader: PageReader, damage: list[Damage], derived: Callable[[StoredFrame], None]) -> None:
        """Tell ``reader`` where frames of pages lie, and ``derived`` of all others; add to ``damage``."""
        self._reader = reader
        self._damage = damage
        self._derived = derived
        self._known = SeqRanges()
        self.highest = -1
        self.in_journals = set[Journal]()

    def of_frames(self, frames: Iterable[StoredFrame]) -> Iterator[Run]:
        """Yield the pages of segments."""
        for frame in frames:
            # Pages can be lost without a trace: a power cut may take a journal's end, and leave what came of it.
            self.highest = max(self.highest, frame.last_page)
            if frame.kind == FrameKind.PAGES:
                yield from self._of_pages(frame)
            else:
                self._derived(frame)

    def _of_pages(self, frame: StoredFrame) -> Iterator[Run]:
        try:
            first, heads, records = unpack_pages(frame.body)
        except StoreDamagedError as error:  # under a checksum that is right: its writer was at fault; it costs itself
            damage = Damage(self._reader.path(frame.address), frame.address.offset, len(frame.body), str(error))
            logger.error("%s, offset %d: %s", *damage[:2], damage.reason)
            self._damage.append(damage)
            return
        for start, stop in self._known.add(first, first + len(records)):
            part = slice(start - first, stop - first)
            yield Run(start, heads.part(part.start, part.stop), list(map(len, records[part])))
        self._reader.persisted([PageFrame(first, len(records), frame.address)])

    def of_journals(self, pages: Iterable[JournaledPage]) -> Iterator[Run]:
        """Yield the journaled pages that no segment has."""
        for seq, body, journal, offset in pages:
            if not self._known.add(seq, seq + 1):
                continue
            self.in_journals.add(journal)
            try:
                heads = heads_of([body])
            except (ValueError, TypeError) as error:  # it was never a page's record; it costs itself only
                damage = Damage(journal.path, offset, RECORD_OVERHEAD + len(body), f"no page's record ({error})")
                logger.error("%s, offset %d: %s", *damage[:2], damage.reason)
                self._damage.append(damage)
                continue
            yield Run(seq, heads, [len(body)], journal, offset)


class PageEntry:
    """Enters runs, in the order of their numbers.

    Attributes:
        sizes: bytes of each page's record, by page number; 0 for lost and forgotten ones.
        forgotten: pages that tombstones name and whose bytes are still there, with the sizes of their records.
    """

    def __init__(self, state: MemoryState, register: Register) -> None:
        self._state = state
        self._register = register
        self._named = set[int]()  # by tombstones, and not taken out yet
        self.forgotten = dict[int, int]()
        self._nameless = 0  # forgotten numbers whose ids mean no page any more
        self.sizes = array("I")

    def enter(self, run: Run) -> list[Scope]:
        """Enter the next pages; return whose they are. What tombstones among them name goes with ``forget``."""
        scopes = [self._state.scope(user_id, assistant_id) for user_id, assistant_id in run.heads.scopes]
        numbers = np.array([scope.number for scope in scopes], np.uint32)
        places = np.frombuffer(run.heads.scope_of, "<u4")
        mine = np.full(len(places), FORGOTTEN, np.uint32)
        mine[places != NO_SCOPE] = numbers[places[places != NO_SCOPE]]
        self._state.pages.extend(mine)
        self.sizes.extend(run.sizes)
        self._named.update(run.heads.forgotten)
        self._register.restore(run.heads, len(run.sizes), self._is_gone)
        return scopes

    def _is_gone(self, seq: int) -> bool:
        return seq in self._named or self._state.pages.scope(seq) == FORGOTTEN

    def lose(self, stop: int) -> None:
        """Leave the numbers below ``stop`` that have not come empty: their pages can't be read any more."""
        while len(self._state.pages) < stop:
            self._state.pages.append_lost()
            self.sizes.append(0)
            self._register.skip()

    def named(self) -> list[int]:
        """Return the pages that ``forget`` will take out."""
        pages = self._state.pages
        return sorted(seq for seq in self._named if seq < len(pages) and pages.is_kept(seq))

    def forget(self) -> None:
        """Take out what tombstones name; a page of theirs that was lost stays lost."""
        named = self.named()
        self.forgotten.update((seq, self.sizes[seq]) for seq in named)
        self._state.pages.forget(named)
        self._named.clear()
        gone = self._state.pages.seqs_of(FORGOTTEN)
        if len(gone) > self._nameless:
            self._nameless = len(gone)
            for seq in gone.tolist():
                self.sizes[seq] = 0
            self._state.ids.forget_all(set(gone.tolist()))

    def fill_ring(self, scope: Scope) -> None:
        """Put the scope's latest pages into its ring."""
        seqs = self._state.pages.seqs_of(scope.number)
        unbatched = len(seqs) % scope.ring.capacity
        scope.ring.restore(seqs[-scope.ring.capacity - unbatched :].tolist(), unbatched)
