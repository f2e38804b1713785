"""So many calls, and so many tokens, an hour and no more: what goes beyond waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Budget", "Window"]

HOUR_S = 3600.0
PIECES = 120  # of a window's length, that are told apart: memory is bounded


@dataclass(slots=True)
class _Spent:
    piece: int
    last: float  # when the latest of it was spent
    amount: float


class Window:
    """An amount that may be spent within any stretch of ``seconds``. Pure; times are handed in."""

    def __init__(self, amount: float, seconds: float = HOUR_S) -> None:
        self._amount = amount
        self._seconds = seconds
        self._spent: deque[_Spent] = deque()

    @classmethod
    def of_calls(cls, share: float) -> Window:
        """Return the window of ``share`` calls an hour, which may be less than one, or a broken number."""
        whole = max(1, int(share))
        return cls(whole, HOUR_S * whole / share)

    def wait_s(self, amount: float, now: float, held: float = 0.0) -> float:
        """Return in how many seconds ``amount`` may be spent, where ``held`` is about to be spent by others.

        What is more than the window's amount waits until nothing else is in it.
        """
        while self._spent and now - self._spent[0].last >= self._seconds:
            self._spent.popleft()
        used = held + sum(spent.amount for spent in self._spent)
        wait = 0.0
        for spent in self._spent:
            if used + amount <= self._amount:
                return wait
            used -= spent.amount
            wait = max(0.0, spent.last + self._seconds - now)
        return self._seconds if held and used + amount > self._amount else wait

    def spend(self, amount: float, now: float) -> None:
        """Note that ``amount`` was spent."""
        piece = int(now / self._seconds * PIECES)
        if self._spent and self._spent[-1].piece == piece:
            self._spent[-1].last = now
            self._spent[-1].amount += amount
        else:
            self._spent.append(_Spent(piece, now, amount))


class Budget:
    """One process's share of the calls and tokens an hour. For one event loop.

    It knows what this process has spent, and what it is told of the one whose place it takes.
    """

    def __init__(self, calls: int, tokens: int, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Share ``calls`` and ``tokens`` an hour, 0 being no limit, evenly among ``processes``."""
        self._calls = Window.of_calls(calls / processes) if calls else None
        self._tokens = Window(tokens / processes) if tokens else None
        self._held = 0
        self._clock = clock
        self._settled = asyncio.Event()

    def inherit(self, spent: Sequence[Sequence[float]]) -> None:
        """Count what was spent before: ``[[seconds ago, calls, tokens], …]``, the oldest first."""
        now = self._clock()
        for ago, calls, tokens in spent:
            if self._calls is not None:
                self._calls.spend(calls, now - ago)
            if self._tokens is not None:
                self._tokens.spend(tokens, now - ago)

    def wait_s(self, tokens: int) -> float:
        """Return the seconds until a call of about so many tokens may be sent; 0 where it may be now."""
        now, waits = self._clock(), [0.0]
        if self._calls is not None:
            waits.append(self._calls.wait_s(1, now))
        if self._tokens is not None:
            waits.append(self._tokens.wait_s(tokens, now, self._held))
        return max(waits)

    async def hold(self, tokens: int) -> None:
        """Wait until a call of about so many tokens may be sent, and count it."""
        while wait := self.wait_s(tokens):
            self._settled.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._settled.wait()
            except TimeoutError:
                continue
        self._held += tokens
        if self._calls is not None:
            self._calls.spend(1, self._clock())

    def settle(self, held: int, spent: int) -> None:
        """Count the tokens that a call has really taken, in the place of those that were held for it."""
        self._held -= held
        if self._tokens is not None:
            self._tokens.spend(spent, self._clock())
        self._settled.set()
