"""Counting what all scopes have, while work goes on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from mos_pipeline.memory.state import MemoryState, Scope

__all__ = ["Counts", "counted"]

SCOPES_AT_ONCE = 256  # some 0.5 ms
PAUSE_S = 0.00005  # so that whoever waits for the lock gets it


@dataclass(slots=True)
class Counts:
    """What was counted.

    Attributes:
        users: those who have pages.
        owed: pages by the task that is owed of them.
        aside: page and reason of what was set aside.
    """

    users: set[str] = field(default_factory=set)
    sessions: int = 0
    facts: int = 0
    owed: Counter[str] = field(default_factory=Counter)
    aside: dict[int, str] = field(default_factory=dict)

    def add(self, state: MemoryState, scope: Scope) -> None:
        """Count one scope's."""
        if state.pages.count_of(scope.number):
            self.users.add(scope.user_id)
        self.sessions += len(scope.mid_term)
        self.facts += len(scope.facts(of_user=True)) + len(scope.facts(of_user=False))
        if scope.owed:
            self.owed.update(scope.owed.counts())
        if scope.aside:
            self.aside.update(scope.aside)


def counted(state: MemoryState, lock: threading.Lock) -> Counts:
    """Return what all scopes have; ``lock``, by which the state is changed, is taken for some of them at a time."""
    counts, scopes = Counts(), state.scopes
    for start in range(0, len(scopes), SCOPES_AT_ONCE):
        if start:
            time.sleep(PAUSE_S)
        with lock:
            for scope in scopes[start : start + SCOPES_AT_ONCE]:
                counts.add(state, scope)
    return counts
