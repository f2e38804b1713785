"""What all scopes have is counted rightly, and nobody who waits for the lock waits for all of them."""

from __future__ import annotations

import threading

from mos_pipeline.config import Config
from mos_pipeline.engine.counting import SCOPES_AT_ONCE, counted
from mos_pipeline.memory.state import MemoryState


class Noted:
    """A lock that tells how often it was held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.times = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self.times += 1

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_all_are_counted_some_at_a_time() -> None:
    state = MemoryState("0" * 16, Config())
    count = 2 * SCOPES_AT_ONCE + 5
    for number in range(count):
        scope = state.scope(f"user {number // 2}", f"assistant {number % 2}")
        if number < count - 4:  # the last two users have no pages
            state.pages.append(len(state.pages), scope.number)
        if number % 100 == 7:
            scope.owed.note(["topics", "profile"], [number])
            scope.aside[number] = f"reason {number}"
    lock = Noted()
    found = counted(state, lock)  # type: ignore[arg-type]
    assert lock.times == 3
    assert len(found.users) == (count - 4 + 1) // 2
    assert (found.sessions, found.facts) == (0, 0)
    assert dict(found.owed) == {"topics": 6, "profile": 6}
    assert found.aside == {number: f"reason {number}" for number in range(7, count, 100)}


def test_a_memory_without_users_is_counted() -> None:
    state = MemoryState("0" * 16, Config())
    assert not counted(state, threading.Lock()).users
