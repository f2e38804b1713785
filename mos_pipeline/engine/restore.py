"""Filling memory with a store's pages: what must have happened before the first ``add``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from mos_pipeline.engine.intake import Accepted, Intake
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.engine.runs import PageEntry, Run, Runs
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.store.reading import PageReader
from mos_pipeline.store.recovery import OpenStore, StoredFrame

__all__ = ["PagesOutOfOrderError", "Restore"]


class PagesOutOfOrderError(Exception):
    """Pages don't come in the order of their numbers."""


class Restore:
    """Reads a store's pages into memory.

    Attributes:
        derived: frames of derived data, in the order of their writing.
        entry: what enters the pages; it knows the sizes of their records.
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
        self._persistence = persistence
        self.derived: list[StoredFrame] = []
        self._runs = Runs(reader, store.damage, self.derived.append)
        self.entry = PageEntry(state, intake.register)

    def pages(self, *, sort: bool = False) -> None:
        """Enter every page of segments and journals; note where derived data lies.

        Args:
            sort: hold all pages in memory and enter them in order. Needed only where a damaged frame's pages are still
                in a journal.

        Raises:
            PagesOutOfOrderError: a page came after one with a higher number; begin anew, with ``sort``.
        """
        runs = self._all_runs()
        for run in sorted(runs, key=lambda run: run.first_seq) if sort else runs:
            if run.first_seq < len(self._state.pages):
                raise PagesOutOfOrderError
            self._enter(run)
        self.entry.lose(self._runs.highest + 1)  # a new page must not inherit a lost one's vector
        self.entry.forget()
        for scope in self._state.scopes:
            self.entry.fill_ring(scope)

    def _all_runs(self) -> Iterator[Run]:
        """Yield segments before journals."""
        yield from chain(
            self._runs.of_frames(self._store.frames()), self._runs.of_journals(self._store.journaled_pages())
        )
        for journal in self._store.journals():
            if journal not in self._runs.in_journals:
                self._store.retire(journal)

    def _enter(self, run: Run) -> None:
        self.entry.lose(run.first_seq)  # damaged, and reported as such
        scopes = self.entry.enter(run)
        if run.journal is not None:
            scope = scopes[0] if scopes else None
            self._persistence.page(run.first_seq, Accepted(scope, run.journal, run.offset, run.sizes[0]))
