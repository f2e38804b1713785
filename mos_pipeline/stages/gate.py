"""How many calls a process may have in flight: fewer after the endpoint refused some, slowly more again after that.

Additive increase, multiplicative decrease: a refusal (429) halves the limit, and as many answers as the limit raise it
by one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Gate"]


class Gate:
    """Lets calls pass in the order they came, urgent ones before all others. For one event loop.

    Attributes:
        limit: calls that may be in flight now; at least 1.
        in_flight: calls that are.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Let at most ``most`` calls pass; ``clock`` tells seconds that never go back."""
        self._most = most
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._closed_until = 0.0
        self._refused_at = float("-inf")
        self.limit = float(most)
        self.in_flight = 0

    @property
    def closed_s(self) -> float:
        """Seconds for which no call shall be sent, as the endpoint asked; 0 where it did not."""
        return max(0.0, self._closed_until - self._clock())

    async def enter(self, *, urgent: bool = False) -> float:
        """Wait for a place among the calls in flight; return the time, to be given back to ``refused``."""
        place = asyncio.get_running_loop().create_future()
        queue = self._urgent if urgent else self._waiting
        queue.append(place)
        self._let_in()
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it had got its place just before
                self.leave()
            raise
        finally:
            queue.remove(place)
        return self._clock()

    def leave(self) -> None:
        """Make room for others: a call is over."""
        self.in_flight -= 1
        self._let_in()

    def succeeded(self) -> None:
        """Raise the limit a little."""
        self.limit = min(float(self._most), self.limit + 1 / self.limit)
        self._let_in()

    def refused(self, entered: float, pause_s: float) -> None:
        """Halve the limit, and let nothing pass for ``pause_s`` seconds.

        Calls that had ``entered`` before the limit was last lowered tell nothing new: they leave it as it is.
        """
        if entered >= self._refused_at:
            self.limit = max(1.0, self.limit / 2)
            self._refused_at = self._clock()
        self._closed_until = max(self._closed_until, self._clock() + pause_s)

    def _let_in(self) -> None:
        for place in itertools.chain(self._urgent, self._waiting):
            if self.in_flight >= int(self.limit):
                return
            if not place.done():
                place.set_result(None)
                self.in_flight += 1
