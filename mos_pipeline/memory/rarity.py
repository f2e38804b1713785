"""Which sessions are retrieved least, at a cost only where one has to go."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

__all__ = ["Rank", "RarityQueue"]

Rank = tuple[int, float, int]  # how often a session was retrieved, when it was visited last, and its id


class RarityQueue:
    """The ranks of sessions, the least first, where ranks hardly ever fall.

    What was noted of a session may be out of date. As its rank has only risen since, that is a lower bound: the one on
    top is compared with what it is now, and sinks to its place. Whoever lowers a rank notes it anew. Not for several
    threads at once: its owner holds a lock.
    """

    __slots__ = ("_heap",)

    def __init__(self, ranks: Iterable[Rank]) -> None:
        self._heap = list(ranks)
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def note(self, rank: Rank) -> None:
        """Note the rank of a new session, or one that has fallen."""
        heapq.heappush(self._heap, rank)

    def take(self, count: int, rank_of: Callable[[int], Rank | None], before: int) -> list[int]:
        """Take out the ``count`` sessions of the least ranks, and return their ids, the least first.

        Args:
            count: how many; fewer where there are not so many.
            rank_of: tells a session's rank now; None where the session is gone.
            before: sessions from this id on stay.
        """
        taken, staying = list[int](), list[Rank]()
        while self._heap and len(taken) < count:
            noted = self._heap[0]
            now = rank_of(noted[2])
            if now is not None and now != noted:
                heapq.heapreplace(self._heap, now)
                continue
            heapq.heappop(self._heap)
            if now is None or noted[2] in taken:
                continue
            if noted[2] < before:
                taken.append(noted[2])
            else:
                staying.append(noted)
        for rank in staying:
            heapq.heappush(self._heap, rank)
        return taken
