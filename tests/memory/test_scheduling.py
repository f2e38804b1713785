from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.memory.scheduling import FairQueue
from tests.memory import law

# Keys 0 to 5; for each step one that comes with new work (and how much), or None: a service.
steps = st.lists(st.none() | st.tuples(st.integers(0, 5), st.integers(1, 8)), max_size=120)


def served(moves: list[tuple[int, int] | None]) -> tuple[list[int], list[tuple[int, int]]]:
    """Play ``moves``, then serve what is left; return the services and, for each wait, when it began and ended."""
    queue: FairQueue[int] = FairQueue()
    backlog = dict.fromkeys(range(6), 0)
    services: list[int] = []
    began: dict[int, int] = {}
    waits: list[tuple[int, int]] = []

    def come(key: int, work: int) -> None:
        backlog[key] += work
        if key not in queue:
            queue.push(key, backlog[key])
            began[key] = len(services)

    def serve() -> None:
        key = queue.pop()
        waits.append((began.pop(key), len(services)))
        services.append(key)
        backlog[key] -= 1
        if backlog[key]:
            come(key, 0)

    for move in moves:
        if move is not None:
            come(*move)
        elif len(queue):
            serve()
    while len(queue):
        serve()
    assert not any(backlog.values())
    return services, waits


@law
@given(steps)
def test_while_a_key_waits_every_other_is_served_twice_at_most(moves: list[tuple[int, int] | None]) -> None:
    services, waits = served(moves)
    for begin, end in waits:
        between = services[begin:end]
        assert all(between.count(key) <= 2 for key in range(6))
        assert services[end] not in between


@law
@given(steps)
def test_the_order_follows_from_the_calls_alone(moves: list[tuple[int, int] | None]) -> None:
    assert served(moves) == served(moves)


@law
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_keys_that_come_together_take_turns_small_ones_first(backlogs: list[int]) -> None:
    services, _ = served(list(enumerate(backlogs)))
    first_round = services[: len(backlogs)]
    assert first_round == sorted(range(len(backlogs)), key=lambda key: (backlogs[key], key))
    for key, backlog in enumerate(backlogs):
        assert services.count(key) == backlog
        rounds = [at for at, other in enumerate(services) if other == key]
        assert all(b - a <= 2 * len(backlogs) for a, b in pairwise(rounds))


def test_a_newcomer_is_served_within_one_round_of_bulk_loads() -> None:
    queue: FairQueue[str] = FairQueue()
    for key in ("bulk", "load"):
        queue.push(key, 100_000)
    for _ in range(50):
        queue.push(queue.pop(), 100_000)
    queue.push("newcomer", 10**9)
    order = []
    for _ in range(3):
        order.append(queue.pop())
        queue.push(order[-1], 100_000)
    assert "newcomer" in order


def test_leaving_and_coming_back_wins_no_second_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("large", 50)
    queue.push("small", 1)
    assert queue.pop() == "small"
    queue.push("small", 1)
    assert [queue.pop(), queue.pop()] == ["large", "small"]


def test_an_idle_key_saves_nothing_up() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("idle", 1)
    queue.pop()
    queue.push("busy", 9)
    for _ in range(20):
        queue.push(queue.pop(), 9)
    queue.push("idle", 1)
    order = []
    for _ in range(6):
        order.append(queue.pop())
        queue.push(order[-1], 9)
    assert order.count("idle") == order.count("busy") == 3


@pytest.mark.parametrize("services", range(4))
def test_a_key_that_was_idle_counts_as_a_newcomer(services: int) -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("idle", 1)
    assert queue.pop() == "idle"
    queue.push("a", 1)
    queue.push("b", 1)
    for _ in range(20 + services):
        queue.push(queue.pop(), 1)
    queue.push("idle", 10**9)
    order = []
    for _ in range(3):
        order.append(queue.pop())
        queue.push(order[-1], 1)
    assert "idle" in order


def test_a_key_waits_once() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", 1)
    with pytest.raises(InputError, match="'a' waits"):
        queue.push("a", 1)
    assert len(queue) == 1
    assert "a" in queue
    assert queue.pop() == "a"
    assert "a" not in queue
    with pytest.raises(IndexError):
        queue.pop()
