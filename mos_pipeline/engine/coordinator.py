"""The coordinator: the one thread that changes the state.

It takes calls from its inbox (outcomes, requests), and between them works in slices: pages that were accepted enter the
columns and the word index, batches are given out, the writer gets its share. A slice holds ``lock`` for less than a
millisecond; after a millisecond without a pause the thread sleeps for a moment, so that callers get the
interpreter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from mos_pipeline.engine.compaction import Compaction
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.forgetting import Forgetting
from mos_pipeline.engine.indexing import Indexing
from mos_pipeline.engine.intake import Intake, Rouse
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.engine.processing import Processing
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.engine.repaying import Repaying
from mos_pipeline.engine.visits import Visits
from mos_pipeline.errors import ClosedError, MosError, StoreError
from mos_pipeline.memory.state import MemoryState, Scope

__all__ = ["Coordinator"]

logger = logging.getLogger(__name__)

ABSORB_AT_ONCE = 64
INDEX_AT_ONCE = 16
CALLS_S = 0.0003  # for answers and requests in a slice
SLICE_S = 0.0008
BUSY_S = 0.001
PAUSE_S = 0.00005
SPARE_PAUSE_S = 5.0
MAX_FAILURES = 3  # in a row; then it rests, and tries again with the next page

Call = Callable[[], None]


@dataclass(slots=True, eq=False)
class _Waiter:
    """Someone who waits: for all work to be done (``drains``), or for the pages below ``upto`` to be written."""

    drains: bool
    upto: int = 0
    event: threading.Event = field(default_factory=threading.Event)
    done: bool = False


class Coordinator:
    """Owner of the state; everything below it is called by its thread, or by others while they hold ``lock``.

    Attributes:
        absorbed: pages that were accepted since the opening, and have entered the columns.
    """

    def __init__(
        self,
        state: MemoryState,
        intake: Intake,
        indexing: Indexing,
        processing: Processing,
        persistence: Persistence,
        derived: Derived,
        promotion: Promotion,
        forgetting: Forgetting,
        visits: Visits,
        compaction: Compaction,
        repaying: Repaying,
        desk: Desk,
        inbox: SimpleQueue[Call | None],
    ) -> None:
        self.lock = threading.Lock()
        self._state = state
        self._intake = intake
        self._indexing = indexing
        self._processing = processing
        self._persistence = persistence
        self._derived = derived
        self._promotion = promotion
        self._forgetting = forgetting
        self._visits = visits
        self._compaction = compaction
        self._repaying = repaying
        self._desk = desk
        self._inbox = inbox
        self._waiters: list[_Waiter] = []
        self._stopping = False
        self._hurry = False
        self._breathed = 0.0
        self._no_spare_before = 0.0
        self._ended = False
        self.absorbed = 0
        self.error: MosError | None = None
        self.writing_error: MosError | None = None
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="mos-coordinator", daemon=True
        )

    def start(self, first: Call) -> None:
        """Start the thread; ``first`` (restoring) is its first work."""
        self._inbox.put(first)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread once it has absorbed every accepted page and handed it to the writer."""
        self._hurry = True
        self._inbox.put(self._stop)
        self._thread.join()

    def settle(self) -> None:
        """Take the answers that came after the thread was stopped, and tell those who still wait."""
        self._ended = True
        while not self._inbox.empty():
            call = self._inbox.get()
            try:
                if call is not None:
                    call()
            except Exception:  # an answer's edge: the others count all the same
                logger.exception("an answer could not be taken while closing")
        self.fail(ClosedError("the pipeline was closed while this waited; open the store again"), writing=True)

    def fail(self, error: MosError, *, writing: bool = False) -> None:
        """Note why pages can't be worked on any more, or (``writing``) not even written, and tell those who wait."""
        self.error = error
        self.writing_error = error if writing else self.writing_error
        told = [waiter for waiter in self._waiters if waiter.drains or writing]
        self._waiters = [waiter for waiter in self._waiters if waiter not in told]
        self._processing.draining = False
        self._repaying.fail(error)
        if writing:
            self._compaction.fail(str(error))
        for waiter in told:
            waiter.event.set()

    @property
    def ended(self) -> bool:
        """Whether the pipeline is closed, and nothing is taken from the inbox any more."""
        return self._ended

    def wait_idle(self, timeout: float | None) -> bool:
        """Wait until every accepted page is embedded, applied and written; return whether it came to that."""
        return self._wait(_Waiter(drains=True), timeout)

    def wait_written(self, timeout: float | None) -> bool:
        """Wait until every page accepted before the call is in a flushed segment; return whether it came to that."""
        return self._wait(_Waiter(drains=False, upto=self._intake.next_seq), timeout)

    def breathe(self) -> bool:
        """Let others have ``lock`` once in a while; return False where the work at hand should be given up."""
        if time.perf_counter() - self._breathed > BUSY_S:
            self._desk.send()
            self.lock.release()
            time.sleep(PAUSE_S)
            self.lock.acquire()
            self._breathed = time.perf_counter()
        return not self._hurry

    def absorb(self, limit: int | None = None) -> None:
        """Enter accepted pages into the columns, and take out those that were forgotten; under ``lock``."""
        accepted, left = self._intake.accepted, len(self._intake.accepted) if limit is None else limit
        while accepted and left > 0:
            left -= 1
            item, seq = accepted[0], len(self._state.pages)
            # Into the columns first: whoever asks whose page it is finds it in one place or the other.
            if item.scope is None:
                self._state.pages.append_forgotten()
            else:
                self._state.pages.append(seq, item.scope.number)
            accepted.popleft()
            self._persistence.page(seq, item)
            self._forgetting.dead.enter(0 if item.scope is None else item.size)
            if item.scope is None:
                self._forgetting.forget(item.forgotten)
                continue
            self.absorbed += 1
            self._indexing.page_came(item.scope)
            self._processing.page_came(item.scope, seq)

    def catch_up(self, scope: Scope) -> None:
        """Make what was accepted for ``scope`` so far searchable by its words, and nothing forgotten; under ``lock``.

        What was accepted for others after that waits for its turn: whoever asks needn't wait for another's bulk load.
        """
        behind = max(scope.latest, self._intake.last_tombstone) + 1 - len(self._state.pages)
        if behind > 0:
            self.absorb(behind)
        self._indexing.catch_up(scope)

    def settle_accounts(self) -> None:
        """Enter accepted pages, and count the visits noted so far; under ``lock``."""
        self.absorb()
        self._visits.count()

    def _run(self) -> None:
        busy_since = time.perf_counter()
        more, failures = False, 0
        while True:
            try:
                call = self._inbox.get(timeout=0.0 if more else self._patience())
            except Empty:
                call = None
            try:
                more, failures = self._slice(call), 0
            except Exception as error:  # the thread's edge: without this, callers would wait for nothing
                logger.exception("the coordinator failed; pages are still accepted and kept")
                self.fail(error if isinstance(error, MosError) else MosError(f"the coordinator failed: {error!r}"))
                failures += 1
                more = not self._may_rest() and failures < MAX_FAILURES
            if self._stopping and not more:
                return
            if not more:
                busy_since = time.perf_counter()
            elif time.perf_counter() - busy_since > BUSY_S:
                time.sleep(PAUSE_S)
                busy_since = time.perf_counter()

    @property
    def _idle(self) -> bool:
        return self._processing.idle and self._promotion.idle

    def _patience(self) -> float | None:
        due = min((due for due in (self._due(), self._repaying.due()) if due is not None), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _due(self) -> float | None:
        """Return when (monotonic seconds) there is something to do though nothing comes; None where nothing waits."""
        return _first(self._writing_due(), self._processing.due())

    def _writing_due(self) -> float | None:
        """Return when the writer must get something; None where nothing waits."""
        return _first(self._persistence.due(), self._derived.due())

    def _slice(self, call: Call | None) -> bool:
        """Do one step of everything; return whether there is more to do at once."""
        more, begun = False, time.perf_counter()
        self._intake.rouse = Rouse.NEVER  # until it is known again that no accepted page waits
        with self.lock, self._desk.gathered():
            self._take_calls(call, begun + CALLS_S)
            self.absorb(ABSORB_AT_ONCE)
            self._visits.count()
            if not self._hurry:
                self._processing.end_bulk()
                more = self._indexing.step(INDEX_AT_ONCE, begun + SLICE_S)
                more |= self._dispatch(begun + SLICE_S)
                more |= self._compaction.step()
                more |= self._repaying.step()
            self._hand_over()
            more |= bool(self._intake.accepted)
            self._serve_waiters(calm=not more)
            more = more or not self._may_rest()
        if not self._hurry:
            self._provide_spare()
        return more or not self._inbox.empty()

    def _take_calls(self, call: Call | None, until: float) -> None:
        """Make ``call``, and those that wait behind it."""
        while True:
            if call is not None:
                call()
            if time.perf_counter() > until or self._inbox.empty():
                return
            call = self._inbox.get()

    def _dispatch(self, until: float) -> bool:
        """Give out batches, at least one if there is room for it; return whether there may be more."""
        while self._processing.dispatch():
            if time.perf_counter() > until:
                return True
        return False

    def _hand_over(self) -> None:
        """Give the writer its share: what is due, or everything where somebody waits for it."""
        calm = self._idle and not self._intake.accepted
        if self._stopping or any(calm or not waiter.drains for waiter in self._waiters):
            self._visits.write()
            self._persistence.hand_over(everything=not self._intake.accepted)
            self._derived.flush()
            return
        self._persistence.hand_over_due()
        due = self._derived.due()
        if due is not None and due <= time.monotonic():
            self._derived.flush()

    def _may_rest(self) -> bool:
        """Nothing is left to do: tell what this thread is to be woken for, unless another page has come."""
        rouse = Rouse.ANY_PAGE
        if self._writing_due() is not None:  # by then, which is soon, it looks at all pages anyway
            # While no batch can be given out, an answer wakes it, and a full ring need not.
            rouse = Rouse.NEVER if self._processing.saturated else Rouse.FULL_RING
        with self._intake.lock:
            self._intake.rouse = rouse
            return not self._intake.accepted

    def _serve_waiters(self, *, calm: bool) -> None:
        if self._persistence.error is not None and self.writing_error is None:
            self.fail(self._persistence.error, writing=True)
        served = [waiter for waiter in self._waiters if self._came_true(waiter, calm=calm)]
        if served:
            self._waiters = [waiter for waiter in self._waiters if waiter not in served]
            self._processing.draining = any(waiter.drains for waiter in self._waiters)
            for waiter in served:
                waiter.done = True
                waiter.event.set()

    def _came_true(self, waiter: _Waiter, *, calm: bool) -> bool:
        if waiter.drains:
            written = self._derived.empty and self._persistence.idle
            return calm and self._idle and written and not self._intake.accepted
        return len(self._state.pages) >= waiter.upto and self._persistence.written(waiter.upto)

    def _wait(self, waiter: _Waiter, timeout: float | None) -> bool:
        def begin() -> None:
            if (self.error if waiter.drains else self.writing_error) is not None:
                waiter.event.set()
                return
            self._waiters.append(waiter)
            if waiter.drains:
                self._processing.drain()

        def give_up() -> None:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            self._processing.draining = any(waiter.drains for waiter in self._waiters)

        self._inbox.put(begin)
        if self._ended:  # nobody takes it any more
            return False
        if not waiter.event.wait(timeout):
            self._inbox.put(give_up)
        return waiter.done

    def _provide_spare(self) -> None:
        if time.monotonic() < self._no_spare_before:
            return
        try:
            self._intake.provide_spare()
        except StoreError as error:
            # Not fatal here: add makes its own journal when it needs one, and raises where that fails too. A full disk
            # stays so for a while: an attempt at every slice would flood the log.
            self._no_spare_before = time.monotonic() + SPARE_PAUSE_S
            logger.warning("the next journal can't be made ahead of need: %s", error)

    def _stop(self) -> None:
        self._stopping = True


def _first(*dues: float | None) -> float | None:
    return min((due for due in dues if due is not None), default=None)
