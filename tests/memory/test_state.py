"""All that is remembered: whose it is."""

from __future__ import annotations

import threading
import time

import pytest

from mos_pipeline.config import Config
from mos_pipeline.memory.state import MemoryState, Scope


def test_scopes_made_at_once_are_found_by_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is accepted for a new user while a store's events are told again, of one whose pages are lost."""
    state, make = MemoryState("0" * 16, Config()), MemoryState._new_scope

    def slowly(self: MemoryState, user_id: str, assistant_id: str) -> Scope:
        scope = make(self, user_id, assistant_id)
        time.sleep(0.02)
        return scope

    monkeypatch.setattr(MemoryState, "_new_scope", slowly)
    threads = [threading.Thread(target=state.scope, args=(f"user {number % 3}", "one")) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [scope.number for scope in state.scopes] == [0, 1, 2]
    assert all(state.find(scope.user_id, "one") is scope for scope in state.scopes)
