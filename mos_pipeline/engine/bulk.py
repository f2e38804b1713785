"""Pages that come many at a time may wait for one another, so that one call tells of many. Owned by the coordinator.

A scope is loaded in bulk from the first page that an input brings until nothing more of it is on its way: everything
shall be done now, or nothing has come for ``llm.bulk_wait_s``. Meanwhile its calls wait for ``llm.bulk_tokens``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mos_pipeline.config import Llm
from mos_pipeline.memory.selection import estimated_tokens
from mos_pipeline.memory.state import Scope

__all__ = ["Bulk"]

TOGETHER = 4  # batches of one user in a unit of the extractive provider's


class Bulk:
    """Knows which scopes are loaded in bulk, and how much one call takes.

    Attributes:
        tokens: of page text that are told of at once; 0 where every batch is by itself, and nothing waits.
        together: batches that cross over to a worker together, and are told of one after the other.
    """

    def __init__(self, config: Llm, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock()`` tells seconds that never go back."""
        asks = config.provider != "extractive" and config.plan == "batched"
        self.tokens = config.bulk_tokens if asks else 0
        self.together = TOGETHER if config.provider == "extractive" else 1
        self._side_chars = config.page_chars
        self._wait_s = config.bulk_wait_s
        self._clock = clock
        self._ends: dict[int, float] = {}  # by scope number, when it is over if nothing comes; the soonest first

    def came(self, scope: Scope) -> None:
        """Note that a page of a bulk load has come for ``scope``, or is embedded now."""
        if self.tokens:
            self._ends.pop(scope.number, None)
            self._ends[scope.number] = self._clock() + self._wait_s

    def goes_on(self, scope: Scope) -> bool:
        """Return whether ``scope`` is loaded in bulk, so that more of its pages may come."""
        return scope.number in self._ends

    def end(self, scope: Scope) -> None:
        """Note that nothing more will come for ``scope``."""
        self._ends.pop(scope.number, None)

    @property
    def scopes(self) -> list[int]:
        """The numbers of the scopes that are loaded in bulk."""
        return list(self._ends)

    @property
    def due(self) -> float | None:
        """When (by the clock) the first of them is over; None where there is none."""
        return next(iter(self._ends.values()), None)

    @property
    def overdue(self) -> list[int]:
        """The numbers of those for which nothing has come for long enough."""
        now, found = self._clock(), list[int]()
        for number, end in self._ends.items():
            if end > now:
                break
            found.append(number)
        return found

    def cost(self, user_input: str, agent_response: str) -> int:
        """Return the tokens of a page's text, as far as it is shown to a model."""
        return sum(estimated_tokens(side[: self._side_chars]) for side in (user_input, agent_response))
