"""Compaction: segments are written again without what was forgotten, in the background.

Owned by the coordinator. In this order, each a step of its own:

1. every scope's mid- and long-term memory is written as it is now (a checkpoint), so that the events before it, which
   may tell of forgotten pages, are not needed any more;
2. the journal is changed, and the pages of the old one are waited for: they are in segments then, and it is removed;
3. the writer rewrites all segments, swaps the MANIFEST, and tells where pages lie now.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mos_pipeline.engine.checkpoints import checkpoint, encode_checkpoints
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.forgetting import Forgetting
from mos_pipeline.engine.intake import Intake
from mos_pipeline.engine.persistence import WRITER, Persistence
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.codec import NO_PAGE, FrameKind
from mos_pipeline.store.reading import FrameMove, PageReader
from mos_pipeline.store.segments import FrameAddress, SegmentReader

__all__ = ["Compaction", "CompactionResult"]

logger = logging.getLogger(__name__)

SCOPES_AT_ONCE = 16  # in one frame, and in one step


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """What a compaction has changed; bytes of all segments before and after it."""

    before: int
    after: int


@dataclass(slots=True, eq=False)
class _Waiter:
    event: threading.Event = field(default_factory=threading.Event)
    result: CompactionResult | None = None


class _Phase(Enum):
    REST = 0
    CHECKPOINTS = 1
    JOURNAL = 2
    REWRITING = 3


class Compaction:
    """One compaction at a time, begun by itself or on request."""

    def __init__(
        self,
        max_dead_ratio: float,
        frame_pages: int,
        state: MemoryState,
        forgetting: Forgetting,
        derived: Derived,
        persistence: Persistence,
        intake: Intake,
        reader: PageReader,
        segments: SegmentReader,
        embedding: Embedding,
        desk: Desk,
    ) -> None:
        """Begin by itself once more than ``max_dead_ratio`` of the pages on the disk are forgotten ones."""
        self._max_dead_ratio = max_dead_ratio
        self._frame_pages = frame_pages
        self._state = state
        self._forgetting = forgetting
        self._derived = derived
        self._persistence = persistence
        self._intake = intake
        self._reader = reader
        self._segments = segments
        self._embedding = embedding
        self._desk = desk
        self._phase = _Phase.REST
        self._waiting = list[_Waiter]()  # for the next one
        self._served = list[_Waiter]()  # by the one under way
        self._next_scope = 0
        self._upto = 0
        self._superseded: FrameAddress | None = None
        self.may_begin = False  # not before the store is restored

    @property
    def idle(self) -> bool:
        """Whether none is under way."""
        return self._phase == _Phase.REST

    def request(self, waiter: _Waiter) -> None:
        """Begin one as soon as can be; ``waiter.event`` is set when it has ended, and its result is there."""
        self._waiting.append(waiter)

    def new_waiter(self) -> _Waiter:
        """Return what ``request`` takes."""
        return _Waiter()

    def step(self) -> bool:
        """Do a little; return whether there is more to do at once."""
        match self._phase:
            case _Phase.REST if self.may_begin and self._wanted():
                self._begin()
                return True
            case _Phase.CHECKPOINTS:
                self._write_checkpoints()
                return True
            case _Phase.JOURNAL if self._persistence.left_journals(self._upto):
                self._rewrite()
        return False

    def _wanted(self) -> bool:
        if self._desk.supervisor is None:
            return False
        dead = len(self._forgetting.dead)
        return bool(self._waiting) or dead > self._max_dead_ratio * (self._state.pages.kept + dead)

    def _begin(self) -> None:
        self._served, self._waiting = self._waiting, []
        self._phase, self._next_scope, self._superseded = _Phase.CHECKPOINTS, 0, None

    def _write_checkpoints(self) -> None:
        scopes = self._state.scopes[self._next_scope : self._next_scope + SCOPES_AT_ONCE]
        self._next_scope += len(scopes)
        self._derived.flush()  # what has happened before comes before
        read = self._embedding.pool.read if self._embedding.has_pool else None
        body = encode_checkpoints([checkpoint(self._state, scope) for scope in scopes], read)
        self._persistence.frame(FrameKind.STATE, body, NO_PAGE, self._note_place)
        if self._next_scope >= len(self._state.scopes):
            self._leave_journal()

    def _note_place(self, place: FrameAddress) -> None:
        if self._superseded is None:
            self._superseded = place

    def _leave_journal(self) -> None:
        self._phase = _Phase.JOURNAL
        self._dead = set(self._forgetting.dead)
        self._upto = self._intake.rotate()
        self._persistence.rotated()

    def _rewrite(self) -> None:
        self._phase = _Phase.REWRITING
        superseded = None if self._superseded is None else list(self._superseded)
        payload = {
            "segments": None,
            "forgotten": pack_seqs(sorted(self._dead)),
            "superseded": superseded,
            "frame_pages": self._frame_pages,
        }
        self._desk.submit(WRITER, "compact", payload, self._rewritten)

    def _rewritten(self, outcome: Outcome) -> None:
        self._phase = _Phase.REST
        if outcome.fate != "done":
            logger.error("the segments could not be compacted: %s; they stay as they are", outcome.error)
            self._end(None)
            return
        self._reader.moved([FrameMove.of(move) for move in outcome.result["moved"]])
        self._segments.drop(outcome.result["removed"])
        self._forgetting.dead = [seq for seq in self._forgetting.dead if seq not in self._dead]
        result = CompactionResult(outcome.result["before"], outcome.result["after"])
        logger.info("compacted: %d bytes in segments before, %d after", result.before, result.after)
        self._end(result)

    def _end(self, result: CompactionResult | None) -> None:
        for waiter in self._served:
            waiter.result = result
            waiter.event.set()
        self._served.clear()
