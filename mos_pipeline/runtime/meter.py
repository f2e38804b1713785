"""What calls to a model cost, by the kind of task: counted in workers, added up in the main process.

Latencies are kept as counts in classes of 5 % each, so memory is bounded and quantiles are good to within that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Meter", "Tally"]

SHORTEST_S = 0.0001
CLASS_WIDTH = math.log(1.05)
CLASSES = 400  # up to some eight hours


@dataclass(slots=True)
class Tally:
    """The calls of one kind of task.

    Attributes:
        calls: requests sent, those included that failed.
        tokens_in: tokens of prompts that were answered, as the endpoint tells, or estimated where it doesn't.
        tokens_out: likewise, of answers.
        tokens_lost: about how many the prompts had of calls that failed, and may have been read all the same.
        retries: calls sent again since the one before failed.
        repairs: answers that had to be mended, or asked for once more.
        fallbacks: tasks that the extractive answer stands in for.
        latencies: answered calls by class of duration.
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_lost: int = 0
    retries: int = 0
    repairs: int = 0
    fallbacks: int = 0
    latencies: Counter[int] = field(default_factory=Counter)

    def answered(self, seconds: float, tokens_in: int, tokens_out: int) -> None:
        """Count one answer."""
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        place = math.log(max(seconds, SHORTEST_S) / SHORTEST_S) / CLASS_WIDTH
        self.latencies[min(round(place), CLASSES)] += 1

    def quantile_s(self, share: float) -> float:
        """Return the duration, in seconds, that a ``share`` (0 to 1) of the answers took at most; 0 without answers."""
        left = math.ceil(share * self.latencies.total())
        for place in sorted(self.latencies):
            left -= self.latencies[place]
            if left <= 0:
                return SHORTEST_S * math.exp(place * CLASS_WIDTH)
        return 0.0

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what ``as_message`` has told."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + other[name])
        self.latencies.update(other["latencies"])

    def as_message(self) -> dict[str, Any]:
        """Return it as plain, msgpack-able values."""
        return {**{name: getattr(self, name) for name in _COUNTS}, "latencies": dict(self.latencies)}


_COUNTS = [each.name for each in fields(Tally) if each.name != "latencies"]


class Meter:
    """A tally for each kind of task that has made calls."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}

    def of(self, kind: str) -> Tally:
        """Return the tally of a kind, new if need be."""
        return self.tallies.setdefault(kind, Tally())

    def take(self) -> dict[str, dict[str, Any]]:
        """Return what was counted since the last call, msgpack-able, and begin anew."""
        told = {kind: tally.as_message() for kind, tally in self.tallies.items()}
        self.tallies.clear()
        return told

    def add(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what ``take`` returned."""
        for kind, tally in told.items():
            self.of(kind).add(tally)

    def copy(self) -> Meter:
        """Return another with the same counts."""
        twin = Meter()
        twin.add({kind: tally.as_message() for kind, tally in self.tallies.items()})
        return twin
