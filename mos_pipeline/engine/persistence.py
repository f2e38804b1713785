"""What goes to the writer and comes back acknowledged: pages from the journal, derived frames, the model's identity.

Owned by the coordinator; only the counters are read by others. Pages are grouped: a full frame's worth is handed over
at once, fewer after ``flush_interval_s``. A journal is removed when all its pages are in flushed segments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mos_pipeline.config import Store
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.intake import Accepted
from mos_pipeline.errors import StoreError
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.segments import FrameAddress

__all__ = ["WRITER", "Persistence"]

logger = logging.getLogger(__name__)

WRITER = "writer"
# A user's pages lie scattered among all others', so a search reads most texts from a frame each: so many to a range.
SMALL = 2


@dataclass(slots=True, eq=False)
class _Range:
    """Neighbouring records of one journal that are not handed to the writer yet; bytes."""

    journal: Journal
    start: int
    stop: int
    first_seq: int
    pages: int = 0


class Persistence:
    """The coordinator's side of the writer.

    Attributes:
        written_pages: pages, tombstones among them, that were put into segments since the opening.
    """

    def __init__(self, config: Store, reader: PageReader, desk: Desk, retire: Callable[[Journal], None]) -> None:
        """Hand work over by ``desk``; remove a finished journal by ``retire``."""
        self._config = config
        self._reader = reader
        self._desk = desk
        self._retire = retire
        self._ranges: list[_Range] = []
        self._writing: list[_Range] = []
        self._since: float | None = None
        self._left: dict[Journal, int] = {}
        self._current: Journal | None = None
        self.outstanding_bytes = 0
        self.outstanding = 0
        self.written_pages = 0
        self.error: StoreError | None = None  # why pages stay in their journal until the next opening

    @property
    def idle(self) -> bool:
        """Whether everything is in flushed segments."""
        return not self._ranges and not self.outstanding

    def written(self, seq: int) -> bool:
        """Whether every page below ``seq`` that has been entered is in a flushed segment."""
        return all(part.first_seq >= seq for part in (*self._writing, *self._ranges))

    def page(self, seq: int, accepted: Accepted) -> None:
        """Note an accepted page, or a tombstone."""
        journal = accepted.journal
        self._reader.add_unpersisted(seq, journal, accepted.offset)
        stop = accepted.offset + RECORD_OVERHEAD + accepted.size
        if journal is not self._current:
            previous, self._current = self._current, journal
            if previous is not None:
                self._retire_if_done(previous)
        self._left[journal] = self._left.get(journal, 0) + 1
        last = self._ranges[-1] if self._ranges else None
        if last is None or last.journal is not journal or last.pages >= self._config.frame_pages:
            last = _Range(journal, accepted.offset, stop, seq)
            self._ranges.append(last)
            if self._since is None:
                self._since = time.monotonic()
        last.stop = stop
        last.pages += 1

    def due(self) -> float | None:
        """Return when (monotonic seconds) the pages that wait must be handed over; None where none wait."""
        if self._since is None:
            return None
        full = len(self._ranges) > 1 or self._ranges[0].pages >= self._config.frame_pages
        return 0.0 if full else self._since + self._config.flush_interval_s

    def hand_over(self, *, everything: bool = False) -> None:
        """Give the writer the full frames' worth that waits, or everything; without a writer it stays journaled."""
        if self._desk.supervisor is None:
            self._since = None
            return
        while self._ranges and (
            everything or self._ranges[0].pages >= self._config.frame_pages or len(self._ranges) > 1
        ):
            part = self._ranges.pop(0)
            self._writing.append(part)
            self.outstanding += 1
            payload = [str(part.journal.path), part.start, part.stop, max(1, self._config.frame_pages // SMALL)]
            self._desk.submit(WRITER, "pages", payload, partial(self._pages_written, part))
        self._since = time.monotonic() if self._ranges else None

    def hand_over_due(self) -> None:
        """Give the writer what has waited long enough."""
        due = self.due()
        if due is not None and due <= time.monotonic():
            self.hand_over(everything=due > 0.0)

    def ended(self, journal: Journal | None) -> frozenset[Journal]:
        """Note that every page of ``journal`` has been entered; return it and those before it that are still there.

        While one of its pages is still to be entered, it must not seem done: it would be removed with that page.
        """
        if journal is not None and journal is self._current:
            self._current = None
            self._retire_if_done(journal)
        return frozenset(self._left.keys() - {self._current})

    def left(self, upto: int, journals: frozenset[Journal]) -> bool:
        """Whether every page below ``upto`` is in a flushed segment, and ``journals`` are removed."""
        return self.written(upto) and journals.isdisjoint(self._left)

    def frame(
        self, kind: FrameKind, body: bytes, last_page: int, written: Callable[[FrameAddress | None], None] | None = None
    ) -> None:
        """Give the writer a derived frame; ``last_page`` is the highest page that it speaks of.

        ``written(address)`` is told where it lies, once that is durable; None where it was refused.
        """
        self._send("frame", [int(kind), body, last_page], len(body), written)

    def identity(self, identity: dict[str, Any]) -> None:
        """Have the model's identity written to the MANIFEST."""
        self._send("identity", identity, 0)

    def _send(
        self, kind: str, payload: Any, size: int, written: Callable[[FrameAddress | None], None] | None = None
    ) -> None:
        self.outstanding += 1
        self.outstanding_bytes += size
        self._desk.submit(WRITER, kind, payload, partial(self._written, size, written))

    def _written(self, size: int, written: Callable[[FrameAddress | None], None] | None, outcome: Outcome) -> None:
        if outcome.fate == "down":
            return  # the writer stays down: nothing counts as written
        if outcome.fate != "done":
            logger.error(
                "the writer refused a derived frame, which is made again at the next opening: %s", outcome.error
            )
        if written is not None:
            written(FrameAddress._make(outcome.result) if outcome.fate == "done" else None)
        self.outstanding -= 1
        self.outstanding_bytes -= size

    def _pages_written(self, part: _Range, outcome: Outcome) -> None:
        if outcome.fate != "done":
            # The journal that holds them stays; the next opening hands them over again.
            logger.error("pages of %s could not be written to a segment: %s", part.journal.path, outcome.error)
            self.error = StoreError(
                f"{part.journal.path}: its pages could not be written to a segment: {outcome.error}"
            )
            return
        self.outstanding -= 1
        self.written_pages += part.pages
        self._writing.remove(part)
        self._reader.persisted(
            [PageFrame(first, count, FrameAddress(segment, at)) for segment, at, first, count in outcome.result]
        )
        self._left[part.journal] -= part.pages
        self._retire_if_done(part.journal)

    def _retire_if_done(self, journal: Journal) -> None:
        if journal is not self._current and self._left.get(journal) == 0:
            del self._left[journal]
            self._retire(journal)
