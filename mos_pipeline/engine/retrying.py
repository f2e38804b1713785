"""Asking for pages that were set aside to be worked on again. In the caller's thread."""

from __future__ import annotations

from collections.abc import Callable

from mos_pipeline.engine.coordinator import Coordinator
from mos_pipeline.engine.intake import Intake
from mos_pipeline.engine.processing import Processing
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.store.reading import PageReader

__all__ = ["Retrying"]


class Retrying:
    """Gives out again what was set aside."""

    def __init__(
        self,
        state: MemoryState,
        coordinator: Coordinator,
        processing: Processing,
        intake: Intake,
        reader: PageReader,
        wake: Callable[[], None],
    ) -> None:
        self._state = state
        self._coordinator = coordinator
        self._processing = processing
        self._intake = intake
        self._reader = reader
        self._wake = wake

    def everything(self) -> int:
        """Take up every page that was set aside and whose batch is not under way; return how many they are."""
        count = 0
        for scope in list(self._state.scopes):
            with self._coordinator.lock:
                seqs = self._processing.retry(scope)
                bare = [seq for seq in seqs if self._state.pages.row(seq) < 0 and self._processing.counts(seq)]
                self._intake.add_backlog(sum(map(len, self._reader.read_many(bare))))
            count += len(seqs)
        self._wake()
        return count
