"""How hot a session is, and which one is hottest, kept lazily."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

__all__ = ["HeatQueue", "heat", "recency"]


def heat(
    visits: int,
    interactions: int,
    hours_since_visit: float,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    recency_hours: float,
) -> float:
    """Return the heat of a session.

    ``α·N_visit + β·L_interaction + γ·R_recency`` with ``R_recency = exp(-hours / recency_hours)``, after Kang et al.,
    Memory OS of AI Agent (arXiv 2506.06326).

    Args:
        visits: N_visit, retrievals that matched the session.
        interactions: L_interaction, its pages.
        hours_since_visit: below 0, where the visit's clock was ahead, counts as 0.
        alpha: weight of visits.
        beta: weight of interactions.
        gamma: weight of recency.
        recency_hours: after so many hours recency has fallen to 1/e; above 0.
    """
    return alpha * visits + beta * interactions + gamma * recency(hours_since_visit, recency_hours)


def recency(hours_since_visit: float, recency_hours: float) -> float:
    """Return R_recency, 0 to 1; both as in ``heat``."""
    return math.exp(-max(0.0, hours_since_visit) / recency_hours)


class HeatQueue:
    """Which session is hottest, at a cost only where something has changed.

    A change of heat is only marked, and reckoned when the hottest is asked for. Without a change heat falls with time
    alone, so what was reckoned earlier is an upper bound: the session on top is reckoned again, sinks to its place if
    it has cooled, and the first one that has not is hottest, as all others lie below even with their old heat.

    So two things must hold: a session whose heat may have risen is marked before it is asked for, and so are all where
    the clock was set back. Not for several threads at once: its owner holds a lock.
    """

    __slots__ = ("_bounds", "_heap", "_marked")

    def __init__(self) -> None:
        self._bounds: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []  # (-bound, session); one that differs from _bounds is out of date
        self._marked: set[int] = set()

    def __len__(self) -> int:
        return len(self._bounds.keys() | self._marked)

    def mark(self, session_id: int) -> None:
        """Note that a session's heat changed, or that it is new."""
        self._marked.add(session_id)

    def discard(self, session_id: int) -> None:
        """Leave a session out from now on; one that isn't there is fine."""
        self._marked.discard(session_id)
        self._bounds.pop(session_id, None)

    def settle(self, heat_of: Callable[[int], float]) -> None:
        """Reckon the heat of what was marked."""
        for session_id in self._marked:
            self._push(session_id, heat_of(session_id))
        self._marked.clear()
        if len(self._heap) > 2 * len(self._bounds) + 8:
            self._heap = [(-bound, session_id) for session_id, bound in self._bounds.items()]
            heapq.heapify(self._heap)

    def reaching(self, heat: float) -> list[int]:
        """Return the sessions that may be as hot as that, of those that are settled."""
        return [session_id for session_id, bound in self._bounds.items() if bound >= heat]

    def hottest(self, heat_of: Callable[[int], float]) -> tuple[int, float] | None:
        """Return the hottest session, of equals the oldest, and its heat by ``heat_of``; None where there is none."""
        self.settle(heat_of)
        while self._heap:
            bound, session_id = self._heap[0]
            if self._bounds.get(session_id) != -bound:
                heapq.heappop(self._heap)
                continue
            present = heat_of(session_id)
            if present >= -bound:
                return session_id, present
            heapq.heappop(self._heap)
            self._push(session_id, present)
        return None

    def _push(self, session_id: int, bound: float) -> None:
        self._bounds[session_id] = bound
        heapq.heappush(self._heap, (-bound, session_id))
