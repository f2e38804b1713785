"""When what is owed is asked for again: round after round, behind fresh work. Owned by the coordinator.

A round goes through all that is owed, once. Its first unit is a probe: only where the endpoint answers it do others
follow, several at a time; where it does not, the round is over. Rounds begin by themselves every
``llm.repay_interval_s``, and on request. Pages of a scope that has a batch under way are not asked of yet: a round that
is left with such scopes is over, or, where somebody waits for it, gives way to others in the meantime.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mos_pipeline.config import Llm
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.owed_work import Fate, OwedWork, Repayer
from mos_pipeline.errors import MosError
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import Repaid

__all__ = ["Repaying"]

_Key = tuple[int, "Repayer"]  # of a scope's number

LOOKED_AT_ONCE = 16  # scopes in one slice of the coordinator's
LONGEST_PAUSE = 64  # intervals, for what the endpoint answers and nobody can use


@dataclass(slots=True, eq=False)
class _Waiter:
    """Someone who asked for a round of scopes that ``wanted`` tells; without a ``result``, ``error`` tells why."""

    wanted: Callable[[Scope], bool]
    event: threading.Event = field(default_factory=threading.Event)
    result: Repaid | None = None
    error: MosError | None = None


@dataclass(slots=True, eq=False)
class _Round:
    """A round.

    Attributes:
        scopes: of which something may be left to ask.
        passed: pages that are not asked of in this round any more, for each of a scope's repayers.
        sure: whether the endpoint has answered.
        repaid: tasks of a page.
        looked: at how many scopes one after the other there was something to ask, but not now.
    """

    waiter: _Waiter | None
    scopes: deque[Scope]
    passed: dict[_Key, set[int]]
    in_flight: int = 0
    sure: bool = False
    repaid: int = 0
    looked: int = 0

    @property
    def stuck(self) -> bool:
        """Whether nothing of it can be asked now."""
        return not self.in_flight and 0 < len(self.scopes) <= self.looked


@dataclass(slots=True)
class _Pause:
    """Pages whose answers could not be used: they are left alone until then (monotonic seconds)."""

    seqs: list[int]
    until: float
    intervals: int


class Repaying:
    """Rounds over what all scopes are owed, one round at a time."""

    def __init__(
        self,
        config: Llm,
        state: MemoryState,
        embedding: Embedding,
        desk: Desk,
        repayers: Sequence[Repayer],
        busy: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """While fresh work makes the pipeline ``busy()``, one unit at a time is asked for, and no more."""
        self._interval = config.repay_interval_s
        self._at_once = config.max_in_flight
        self._answers = config.provider != "extractive"
        self._state = state
        self._embedding = embedding
        self._desk = desk
        self._repayers = repayers
        self._busy = busy
        self._clock = clock
        self._next_at = clock() + self._interval
        self._round: _Round | None = None
        self._waiting = deque[_Waiter]()
        self._stuck = deque[_Round]()  # those that have given way
        self._works = dict[OwedWork, tuple[_Round, Repayer]]()
        self._pauses = dict[tuple[_Key, int], _Pause]()  # by first page
        self.may_begin = False  # not before the store is restored

    def due(self) -> float | None:
        """Return when (monotonic seconds) a round begins by itself; None where none does, or one is under way."""
        wanted = self._answers and self._desk.supervisor is not None and self.may_begin and self._embedding.ready
        return self._next_at if wanted and (self._round is None or self._round.stuck) else None

    def new_waiter(self, wanted: Callable[[Scope], bool]) -> _Waiter:
        """Return what ``request`` takes; ``wanted`` tells whose owed tasks shall be asked for."""
        return _Waiter(wanted)

    def request(self, waiter: _Waiter) -> None:
        """Begin a round as soon as can be; ``waiter.event`` is set when it has ended, and its result is there."""
        self._waiting.append(waiter)
        if self._round is not None and self._round.waiter is None:
            self._round.scopes.clear()  # its own round goes on later

    def give_up(self, waiter: _Waiter) -> None:
        """Note that nobody waits for ``waiter`` any more; what it has asked for goes on like any round."""
        for current in (self._round, *self._stuck):
            if current is not None and current.waiter is waiter:
                current.waiter = None

    def fail(self, error: MosError) -> None:
        """Tell those who wait why nothing comes of it."""
        waiting, self._waiting = [*self._waiting], deque()
        for current in (self._round, *self._stuck):
            if current is not None and current.waiter is not None:
                waiting.append(current.waiter)
                current.waiter = None
        for waiter in waiting:
            waiter.error = error
            waiter.event.set()

    def forget(self, scope: Scope) -> None:
        """Drop what is under way for ``scope``: it may tell of pages that are to be forgotten."""
        for work in [work for work in self._works if work.scope is scope]:
            work.end(Fate.DROPPED)

    def step(self) -> bool:
        """Begin what may begin; return whether there is more to look at, at once."""
        if not self.may_begin or not self._answers or not self._embedding.ready:
            return False
        if self._round is None:
            self._round = self._next_round()
        return self._round is not None and self._go_on(self._round)

    def _next_round(self) -> _Round | None:
        if self._waiting:
            waiter = self._waiting.popleft()
            return _Round(waiter, deque(filter(waiter.wanted, self._owing())), {})
        now = self._clock()
        if now < self._next_at:
            return self._stuck.popleft() if self._stuck else None
        passed = dict[_Key, set[int]]()
        for (key, _), pause in self._pauses.items():
            if pause.until > now:
                passed.setdefault(key, set()).update(pause.seqs)
        return _Round(None, deque(self._owing()), passed)

    def _owing(self) -> list[Scope]:
        return [scope for scope in self._state.scopes if scope.owed]

    def _go_on(self, current: _Round) -> bool:
        most = self._at_once if current.sure and not self._busy() else 1
        for _ in range(min(LOOKED_AT_ONCE, len(current.scopes))):
            if current.in_flight >= most:
                break
            self._begin(current, current.scopes.popleft())
        if not current.in_flight and (not current.scopes or (current.stuck and current.waiter is None)):
            self._end(current)
            return bool(self._waiting or self._stuck)
        if current.stuck:
            if self._waiting or self._clock() >= self._next_at:
                self._stuck.append(current)
                self._round = None
                return True
            return False
        return bool(current.scopes) and current.in_flight < most and current.looked < len(current.scopes)

    def _begin(self, current: _Round, scope: Scope) -> None:
        """Ask the next of ``scope``; it is looked at again when that is answered, or later, where it can't be now."""
        later = False
        for repayer in self._repayers:
            passed = current.passed.setdefault((scope.number, repayer), set())
            seqs = repayer.choose(scope, passed)
            later |= seqs is None
            if seqs:
                passed.update(seqs)
                current.in_flight += 1
                current.looked = 0
                self._works[repayer.ask(scope, seqs, self._ended)] = current, repayer
                return
        if later:
            current.scopes.append(scope)
            current.looked += 1

    def _ended(self, work: OwedWork, fate: Fate, repaid: int) -> None:
        current, repayer = self._works.pop(work)
        current.in_flight -= 1
        current.looked = 0
        current.repaid += repaid
        current.sure = current.sure or fate in {Fate.REPAID, Fate.UNUSABLE}
        if fate is Fate.REPAID and work.left_unreached:
            current.passed[work.scope.number, repayer].difference_update(work.seqs)  # it may be back by now
        self._note_pause(work, repayer, unusable=fate is Fate.UNUSABLE)
        if fate is Fate.UNREACHED:
            current.scopes.clear()
        elif current.waiter is not None or not self._waiting:
            current.scopes.append(work.scope)

    def _note_pause(self, work: OwedWork, repayer: Repayer, *, unusable: bool) -> None:
        key = (work.scope.number, repayer), work.seqs[0]
        before = self._pauses.pop(key, None)
        if unusable:
            intervals = 1 if before is None else min(2 * before.intervals, LONGEST_PAUSE)
            self._pauses[key] = _Pause(work.seqs, self._clock() + intervals * self._interval, intervals)

    def _end(self, current: _Round) -> None:
        self._round = None
        self._next_at = self._clock() + self._interval
        if current.waiter is not None:
            mine = filter(current.waiter.wanted, self._owing())
            owed = sum(sum(scope.owed.counts().values()) for scope in mine)
            current.waiter.result = Repaid(current.repaid, owed)
            current.waiter.event.set()
