"""Compaction inside the writer: passes over segments, one after another, in slices between other work."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mos_pipeline.errors import InputError, StoreError
from mos_pipeline.runtime.worker import Report
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.segment_writer import SegmentWriter

if TYPE_CHECKING:
    from mos_pipeline.store.compaction import Compaction

__all__ = ["CompactionQueue"]

logger = logging.getLogger(__name__)

SLICE_S = 0.01  # other units wait for no longer, but for one frame or one flush more


@dataclass(slots=True, eq=False)
class _Pass:
    """A pass that was begun."""

    unit_id: int
    compaction: Compaction
    steps: Iterator[None]


class CompactionQueue:
    """Passes that were asked for; the first of them is under way."""

    def __init__(self, folder: StoreFolder, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._waiting: deque[tuple[int, Any]] = deque()
        self._running: _Pass | None = None

    def add(self, unit_id: int, payload: Any) -> None:
        """Take a unit ``compact``."""
        self._waiting.append((unit_id, payload))

    @property
    def pending(self) -> bool:
        """Is there a pass that is not over?"""
        return self._running is not None or bool(self._waiting)

    @property
    def unit_ids(self) -> list[int]:
        """The unit that is worked on now, or comes next; none where there is none."""
        if self._running is not None:
            return [self._running.unit_id]
        return [unit_id for unit_id, _ in self._waiting][:1]

    def run(self, writer: SegmentWriter, report: Report) -> None:
        """Work on the first pass for one slice, and report it once it is over.

        A pass that fails is reported as such, and may be asked for again: the store is as it was.

        Raises:
            StoreError: it is not known whether the pass is in force. It stays, and is to be tried again.
        """
        try:
            running = self._running = self._running or self._begun(writer)
            if not self._slice(running.steps):
                return
        except (InputError, StoreError) as error:
            self._fail(report, str(error))
            return
        result = running.compaction.commit()
        self._running = None
        report.done(running.unit_id, result)

    def _begun(self, writer: SegmentWriter) -> _Pass:
        # numpy comes with it, which a writer that never compacts need not hold in memory.
        from mos_pipeline.store.compaction import Compaction, CompactionRequest

        unit_id, payload = self._waiting[0]
        compaction = Compaction(self._folder, writer, CompactionRequest.from_payload(payload))
        self._waiting.popleft()
        return _Pass(unit_id, compaction, compaction.steps())

    def _slice(self, steps: Iterator[None]) -> bool:
        """Return whether the steps are over."""
        until = self._clock() + SLICE_S
        return all(self._clock() < until for _ in steps)

    def _fail(self, report: Report, why: str) -> None:
        """Give up the first pass, be it begun or not."""
        if self._running is None:
            unit_id, _ = self._waiting.popleft()
        else:
            unit_id = self._running.unit_id
            self._close()
        report.failed(unit_id, why)

    def give_up(self, report: Report) -> None:
        """Give up every pass: whoever asked for them wants to close."""
        while self.pending:
            self._fail(report, "compaction was given up; the store is as it was")

    def _close(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            try:
                running.compaction.abandon()
            except StoreError as error:
                logger.warning("%s; the next compaction or opening deletes what it left", error)

    def close(self) -> None:
        """Let go of files; what a pass has written is deleted."""
        self._close()
