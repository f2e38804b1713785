"""Whose batch is next: nobody waits behind another's bulk load."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from mos_pipeline.errors import InputError

__all__ = ["FairQueue"]

K = TypeVar("K", bound=Hashable)


class FairQueue(Generic[K]):
    """Keys that wait for a service of one batch each, handed out by start-time fair queuing.

    After Goyal, Vin and Cheng, Start-time Fair Queuing (SIGCOMM 1996), every batch costing 1, as batches hold equally
    many pages. A key starts at the virtual time, which is the start of the key served last, or one after its own last
    start if that is later; the lowest start is served first, of equal ones the key with the smaller backlog, then the
    one that came first. So

    - while a key waits, every other key is served twice at most, and once at most if it has not been served of late:
      nobody starves, and a newcomer is served within one round, whatever the others' backlog;
    - the order follows from the calls alone.

    Not for several threads at once: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, K]] = []  # start, backlog, arrival (which is unique), key
        self._waiting: set[K] = set()
        self._now = 0
        self._arrivals = 0
        self._served: set[K] = set()  # at the present virtual time: these start at the next one

    def __len__(self) -> int:
        return len(self._heap)

    def __contains__(self, key: object) -> bool:
        return key in self._waiting

    def push(self, key: K, backlog: int) -> None:
        """Let ``key`` wait for a service. A key with more work is pushed again after it was popped.

        Args:
            key: whose batch it is.
            backlog: how much work waits for it altogether, in any unit that is the same for all keys.

        Raises:
            InputError: the key waits already.
        """
        if key in self._waiting:
            raise InputError(f"{key!r} waits in the queue already; push it again after it was popped")
        heapq.heappush(self._heap, (self._now + (key in self._served), backlog, self._arrivals, key))
        self._arrivals += 1
        self._waiting.add(key)

    def pop(self) -> K:
        """Take out the key that is served next.

        Raises:
            IndexError: no key waits.
        """
        start, _, _, key = heapq.heappop(self._heap)
        self._waiting.remove(key)
        if start > self._now:
            self._now = start
            self._served.clear()
        self._served.add(key)
        return key
