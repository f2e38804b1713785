from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.heat import HeatQueue, heat
from tests.memory import law

WEIGHTS = {"alpha": 1.0, "beta": 1.0, "gamma": 1.0, "recency_hours": 24.0}
counts = st.integers(0, 1000)
hours = st.floats(-100, 1e6)


def test_heat_is_the_weighted_sum() -> None:
    assert heat(2, 3, 12.0, alpha=0.5, beta=0.25, gamma=4.0, recency_hours=6.0) == 1.0 + 0.75 + 4.0 * math.exp(-2.0)


@pytest.mark.parametrize(("since", "recency"), [(0.0, 1.0), (-5.0, 1.0), (24.0, math.exp(-1)), (1e9, 0.0)])
def test_recency_falls_from_one(since: float, recency: float) -> None:
    assert heat(0, 0, since, **WEIGHTS) == recency


@law
@given(counts, counts, hours, hours)
def test_heat_rises_with_use_and_falls_with_time(visits: int, pages: int, since: float, more: float) -> None:
    now = heat(visits, pages, since, **WEIGHTS)
    assert heat(visits + 1, pages, since, **WEIGHTS) > now
    assert heat(visits, pages + 1, since, **WEIGHTS) > now
    assert heat(visits, pages, since + abs(more), **WEIGHTS) <= now


class Counted:
    """Heats that fall with time, and how often one was asked for; with ``gamma`` large, time decides which is first."""

    def __init__(self, gamma: float = 1.0) -> None:
        self.weights = {**WEIGHTS, "gamma": gamma}
        self.visits: dict[int, tuple[int, float]] = {}
        self.now = 0.0
        self.asked = 0

    def __call__(self, session_id: int) -> float:
        self.asked += 1
        uses, last = self.visits[session_id]
        return heat(uses, 0, self.now - last, **self.weights)

    def hottest(self) -> tuple[int, float] | None:
        best = min(((-self(session_id), session_id) for session_id in self.visits), default=None)
        return None if best is None else (best[1], -best[0])


few = st.integers(0, 3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("visit"), few),
        st.tuples(st.just("cool"), few),
        st.tuples(st.just("discard"), few),
        st.tuples(st.just("wait"), st.integers(0, 50)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("ask"), st.just(0)),
    ),
    max_size=60,
)


@law
@given(steps, st.sampled_from([1.0, 20.0]))
def test_the_hottest_is_that_of_looking_at_all(history: list[tuple[str, int]], gamma: float) -> None:
    queue, heats = HeatQueue(), Counted(gamma)
    for step, value in [*history, ("ask", 0)]:
        match step:
            case "visit":
                heats.visits[value] = heats.visits.get(value, (0, 0.0))[0] + 1, heats.now
                queue.mark(value)
            case "cool" if value in heats.visits:
                heats.visits[value] = 0, heats.now
                queue.mark(value)
            case "discard":
                heats.visits.pop(value, None)
                queue.discard(value)
            case "wait":
                heats.now += value
            case "settle":
                queue.settle(heats)
            case "ask":
                assert queue.hottest(heats) == heats.hottest()
        assert len(queue) == len(heats.visits)


def test_marking_reckons_nothing_and_asking_only_what_was_marked() -> None:
    queue, heats = HeatQueue(), Counted()
    for session_id in range(100):
        heats.visits[session_id] = session_id, 0.0
        queue.mark(session_id)
    assert heats.asked == 0
    queue.settle(heats)
    assert heats.asked == 100
    assert queue.hottest(heats) == (99, 100.0)
    assert heats.asked == 101  # the top once more
    heats.visits[3] = 200, 0.0
    queue.mark(3)
    assert queue.hottest(heats) == (3, 201.0)
    assert heats.asked == 103


def test_a_session_marked_for_ever_costs_no_room() -> None:
    queue, heats = HeatQueue(), Counted()
    for visits in range(1000):
        heats.visits[0] = visits, 0.0
        queue.mark(0)
        queue.settle(heats)
    assert len(queue._heap) < 20
    queue.discard(0)
    assert queue.hottest(heats) is None
