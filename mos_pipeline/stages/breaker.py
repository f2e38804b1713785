"""An endpoint that is dead is not asked by everybody: a circuit breaker.

It opens when one prompt has tried until its deadline, and the endpoint has given no sign of life to any since it began:
so short outages are waited for, and one prompt that the endpoint can't bear tells nothing of the others. A prompt that
is asked in parts, since the whole was not answered in time, is one prompt as long as nothing is heard. From then on
one call is let through now and then, with growing pauses between; any sign of life closes it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

__all__ = ["Breaker"]

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Breaker:
    """For one event loop.

    Attributes:
        down_since: when it opened, in seconds since 1970; None while it is closed.
        opened: set while it is open.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock()`` tells seconds that never go back."""
        self._clock = clock
        self._random = random.Random()  # noqa: S311  (jitter)
        self._heard_at = float("-inf")
        self._late_since: float | None = None
        self._pause = FIRST_PAUSE_S
        self._next_probe = 0.0
        self._probing = False
        self.down_since: float | None = None
        self.opened = asyncio.Event()

    def now(self) -> float:
        """Return the time, to be given back to ``gave_up``."""
        return self._clock()

    def heard(self) -> None:
        """Note a sign of life: an answer of any kind, but for a fault of the server's own."""
        self._heard_at, self._late_since = self._clock(), None
        self.down_since, self._probing, self._pause = None, False, FIRST_PAUSE_S
        self.opened.clear()

    def late(self, since: float) -> None:
        """Note that a prompt, asked ``since`` then, was not answered in time, and is asked in parts from now on."""
        if self._heard_at < since and self.down_since is None and self._late_since is None:
            self._late_since = since

    @property
    def silence_s(self) -> float:
        """For how long prompts that are asked in parts now have heard nothing."""
        return 0.0 if self._late_since is None else self._clock() - self._late_since

    def gave_up(self, since: float) -> None:
        """Note that a prompt has tried ``since`` then, and until its deadline, without an answer."""
        if self._heard_at < since and self.down_since is None:
            self.down_since, self._late_since = time.time(), None
            self.opened.set()
            self._wait()

    @property
    def admits(self) -> bool:
        """Whether a call may be made now: it is closed, or time for a probe."""
        return self.down_since is None or not (self._probing or self._clock() < self._next_probe)

    def begin(self) -> bool:
        """Note that a call is made; return whether it is a probe, so that ``end_probe`` must follow."""
        probes = self.down_since is not None
        self._probing = self._probing or probes
        return probes

    def end_probe(self) -> None:
        """Note that the probe is over; it is the next one's turn, later, where nothing was heard."""
        if self._probing:
            self._probing = False
            self._wait()

    def try_soon(self) -> None:
        """Let the next call through, whatever the pause."""
        self._next_probe = self._clock()

    def _wait(self) -> None:
        self._next_probe = self._clock() + self._pause * self._random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
