"""What a worker has spent on calls to a model within the last hour: left to the one that takes its place."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

__all__ = ["Spending"]

HOUR_S = 3600.0
STEP_S = 10.0  # what is spent within that counts as one: memory is bounded


class Spending:
    """Calls and tokens by the time they were told of, monotonic seconds that are handed in."""

    def __init__(self) -> None:
        self._spent: deque[list[float]] = deque()  # when the latest of it was, calls, tokens

    def add(self, told: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Add what ``Meter.take`` has told."""
        calls = sum(tally["calls"] for tally in told.values())
        tokens = sum(tally["tokens_in"] + tally["tokens_out"] + tally["tokens_lost"] for tally in told.values())
        if self._spent and int(self._spent[-1][0] / STEP_S) == int(now / STEP_S):
            self._spent[-1] = [now, self._spent[-1][1] + calls, self._spent[-1][2] + tokens]
        elif calls or tokens:
            self._spent.append([now, calls, tokens])
        while self._spent and now - self._spent[0][0] >= HOUR_S:
            self._spent.popleft()

    def left(self, now: float) -> list[list[float]]:
        """Return ``[[seconds ago, calls, tokens], …]``, the oldest first."""
        return [[now - when, calls, tokens] for when, calls, tokens in self._spent if now - when < HOUR_S]
