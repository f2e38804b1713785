"""Which sessions were visited: noted by callers' threads in passing, counted by the coordinator.

A retrieval writes nothing: it leaves a note in a queue. Counts are written when the store is flushed or closed, so a
killed process loses those since then, and no page.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.events import Event, Visited
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.memory.state import Scope

__all__ = ["Visits"]


class Visits:
    """The visits that are not counted yet, and those that are not written yet."""

    def __init__(
        self,
        derived: Derived,
        promotion: Promotion,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``wake()`` wakes the coordinator; ``clock()`` is the present time, in unix seconds."""
        self._derived = derived
        self._promotion = promotion
        self._wake = wake
        self._clock = clock
        self._notes: deque[tuple[Scope, set[int], float]] = deque()
        self._unwritten: dict[Scope, set[int]] = {}

    def note(self, scope: Scope, session_ids: set[int]) -> None:
        """Note that a retrieval has matched sessions; from any thread."""
        if session_ids:
            first = not self._notes
            self._notes.append((scope, session_ids, self._clock()))
            if first:
                self._wake()

    def count(self) -> None:
        """Count what was noted; what has become hot by it is promoted."""
        while self._notes:
            scope, session_ids, when = self._notes.popleft()
            scope.mid_term.visit(session_ids, when)
            self._unwritten.setdefault(scope, set()).update(session_ids)
            self._promotion.consider(scope)

    def write(self) -> None:
        """Give the counts that changed to the writer; the heat that was put off till now is reckoned."""
        for scope, session_ids in self._unwritten.items():
            scope.mid_term.settle(self._clock())
            if sessions := list(_counts(scope, session_ids)):
                self._derived.event(Event(scope.user_id, scope.assistant_id, Visited(sessions)))
        self._unwritten.clear()


def _counts(scope: Scope, session_ids: set[int]) -> Iterable[list[float]]:
    for session_id in sorted(session_ids):
        session = scope.mid_term.get(session_id)
        if session is not None:  # else it was evicted or forgotten meanwhile
            yield [session_id, session.visits, session.last_visit, session.accesses]
