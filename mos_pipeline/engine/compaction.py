"""Compaction: segments are written again without what was forgotten, in the background.

Owned by the coordinator. In this order, each a step of its own:

1. every scope's mid- and long-term memory is written as it is now (a checkpoint), so that the events before it, which
   may tell of forgotten pages, are not needed any more;
2. the journal is changed, and the pages of the old one are entered and waited for: they are in segments then, and it
   is removed;
3. the writer rewrites all segments, swaps the MANIFEST, and tells where pages lie now.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from mos_pipeline.config import Store
from mos_pipeline.engine.batches import Batches
from mos_pipeline.engine.checkpoints import applied, encode_checkpoints, take
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.forgetting import Forgetting
from mos_pipeline.engine.intake import Intake
from mos_pipeline.engine.persistence import WRITER, Persistence
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import Compacted, pack_seqs
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.codec import NO_PAGE, FrameKind
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.reading import PageReader
from mos_pipeline.store.recovery import OpenStore
from mos_pipeline.store.segments import FrameAddress

__all__ = ["Compaction"]

logger = logging.getLogger(__name__)

SCOPES_AT_ONCE = 16  # in one frame, and in one step
PAUSE_S = 60.0  # after one that failed


@dataclass(slots=True, eq=False)
class _Waiter:
    """Someone who waits for a compaction; without a ``result``, ``reason`` tells why."""

    event: threading.Event = field(default_factory=threading.Event)
    result: Compacted | None = None
    reason: str = ""


class _Phase(Enum):
    REST = 0
    CHECKPOINTS = 1
    LEAVING = 2
    JOURNAL = 3
    REWRITING = 4


class Compaction:
    """One compaction at a time, begun by itself or on request."""

    def __init__(
        self,
        config: Store,
        state: MemoryState,
        forgetting: Forgetting,
        batches: Batches,
        derived: Derived,
        persistence: Persistence,
        intake: Intake,
        reader: PageReader,
        store: OpenStore,
        embedding: Embedding,
        desk: Desk,
        lifted: Callable[[], bool],
    ) -> None:
        """Begin by itself once more than ``store.max_dead_ratio`` of the store is dead, see ``DeadPages.share``.

        ``lifted()`` tells whether everything has its vector by the store's model: those of others go then.
        """
        self._max_dead_ratio = config.max_dead_ratio
        self._state = state
        self._forgetting = forgetting
        self._batches = batches
        self._derived = derived
        self._persistence = persistence
        self._intake = intake
        self._reader = reader
        self._store = store
        self._embedding = embedding
        self._desk = desk
        self._lifted = lifted
        self._phase = _Phase.REST
        self._waiting = list[_Waiter]()  # for the next one
        self._served = list[_Waiter]()  # by the one under way
        self._next_scope = 0
        self._upto = 0
        self._journal: Journal | None = None
        self._journals: frozenset[Journal] = frozenset()
        self._dead: set[int] = set()
        self._superseded: FrameAddress | None = None
        self._unwritten = 0  # checkpoints at the writer
        self._refused = False  # was one of them? Then the events before it are still needed
        self._not_before = 0.0
        self._abandoned = False
        self._failure = ""
        self.may_begin = False  # not before the store is restored

    @property
    def idle(self) -> bool:
        """Whether none is under way."""
        return self._phase == _Phase.REST

    def request(self, waiter: _Waiter) -> None:
        """Begin one as soon as can be; ``waiter.event`` is set when it has ended, and its result is there."""
        self._waiting.append(waiter)
        if self._failure:
            self.fail(self._failure)

    def fail(self, reason: str) -> None:
        """Note that nothing can be written any more, and tell those who wait."""
        self._failure = reason
        self._served += self._waiting
        self._waiting.clear()
        self._end(None, reason)

    def new_waiter(self) -> _Waiter:
        """Return what ``request`` takes."""
        return _Waiter()

    def step(self) -> bool:
        """Do a little; return whether there is more to do at once."""
        if self._abandoned or self._failure:
            return False
        match self._phase:
            case _Phase.REST if self.may_begin and self._wanted():
                self._begin()
                return True
            case _Phase.CHECKPOINTS:
                self._write_checkpoints()
                return True
            case _Phase.LEAVING if len(self._state.pages) >= self._upto:  # what was accepted before is entered
                self._wait_for_journals()
                return True
            case _Phase.JOURNAL if not self._unwritten and self._persistence.left(self._upto, self._journals):
                self._rewrite()
        return False

    def _wanted(self) -> bool:
        if self._desk.supervisor is None:
            return False
        if self._waiting:
            return True
        return self._forgetting.dead.share > self._max_dead_ratio and time.monotonic() > self._not_before

    def _begin(self) -> None:
        self._served, self._waiting = self._waiting, []
        self._phase, self._next_scope, self._superseded = _Phase.CHECKPOINTS, 0, None
        self._refused = False
        # What is forgotten from here on may be told of by the checkpoints: it is the next one's.
        self._dead = self._forgetting.dead.seqs
        self._persistence.hand_over(everything=True)  # their tombstones, too, come before the checkpoints, and can go
        if not self._embedding.has_pool:  # so there is nothing but pages and their words
            self._leave_journal()

    def _write_checkpoints(self) -> None:
        scopes = self._state.scopes[self._next_scope : self._next_scope + SCOPES_AT_ONCE]
        self._next_scope += SCOPES_AT_ONCE
        self._derived.flush()  # what has happened before comes before
        read = self._embedding.pool.read
        scopes = [scope for scope in scopes if self._state.pages.count_of(scope.number)]
        taken = [take(self._state, scope, self._applied(scope), read) for scope in scopes]
        body = encode_checkpoints(taken, self._derived.dimension)
        self._unwritten += 1
        self._persistence.frame(FrameKind.STATE, body, NO_PAGE, self._note_place)
        if self._next_scope >= len(self._state.scopes):
            self._leave_journal()

    def _applied(self, scope: Scope) -> list[int]:
        return applied(self._state, scope, self._batches.under_way(scope))

    def _note_place(self, place: FrameAddress | None) -> None:
        self._unwritten -= 1
        self._refused |= place is None
        self._superseded = self._superseded or place

    def _leave_journal(self) -> None:
        self._phase = _Phase.LEAVING
        self._upto, self._journal = self._intake.rotate()

    def _wait_for_journals(self) -> None:
        self._phase = _Phase.JOURNAL
        self._journals = self._persistence.ended(self._journal)

    def _rewrite(self) -> None:
        self._phase = _Phase.REWRITING
        payload = {
            "segments": list(Manifest.load(self._store.folder).segments),  # the writer alone changes them
            "forgotten": pack_seqs(sorted(self._dead)),
            "superseded": None if self._superseded is None or self._refused else list(self._superseded),
            "lifted": self._lifted(),
        }
        self._derived.flush()  # vectors that were made again come before
        self._desk.submit(WRITER, "compact", payload, self._rewritten)

    def _rewritten(self, outcome: Outcome) -> None:
        if outcome.fate != "done":
            level = logging.INFO if self._abandoned else logging.ERROR
            logger.log(level, "the segments could not be compacted: %s; they stay as they are", outcome.error)
            self._not_before = time.monotonic() + PAUSE_S
            self._phase = _Phase.REST
            self._end(None, f"{outcome.error}; the segments stay as they are")
            return
        self._reader.moved(outcome.result["moved"])
        self._store.segments.drop(outcome.result["removed"])
        self._forgetting.dead.clear(self._dead)
        result = Compacted(outcome.result["before"], outcome.result["after"])
        # Only now does nobody in this process read the old files any more.
        self._desk.submit(WRITER, "sweep", None, partial(self._swept, result))

    def _swept(self, result: Compacted, outcome: Outcome) -> None:
        if outcome.fate != "done":
            logger.warning("files of old segments could not be deleted (%s); the next opening does it", outcome.error)
        text = "compacted: %d bytes in segments before, %d after"
        logger.info(text, result.before, result.after, extra={"event": "compacted"})
        self._phase = _Phase.REST
        self._end(result)

    def abandon(self) -> None:
        """Have the writer give up what it is at: whoever closes does not wait for it."""
        self._abandoned = True
        if self._phase == _Phase.REWRITING:
            self._desk.submit(WRITER, "abandon", None, lambda _: None)

    def give_up(self) -> None:
        """Tell those who wait that the pipeline is closed."""
        self.fail("the pipeline was closed meanwhile; what was forgotten stays so, and goes with the next one")

    def _end(self, result: Compacted | None, reason: str = "") -> None:
        for waiter in self._served:
            waiter.result, waiter.reason = result, reason
            waiter.event.set()
        self._served.clear()
