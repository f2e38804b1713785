from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.stages.batching import AHEAD_TURNS, Batcher, CostModel, Item


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(pieces: int = 600, *, clock: Clock | None = None, fixed: float = 0.01, per_piece: float = 0.0001) -> Batcher:
    """A batcher whose query batches may take 30 ms: with these costs 200 pieces."""
    cost = CostModel()
    cost.fit([(100, fixed + 100 * per_piece), (500, fixed + 500 * per_piece)])
    return Batcher(pieces, 1.0, 0.030001, cost, clock or Clock())


def drain(batcher: Batcher) -> list[list[Item]]:
    batches = []
    while batch := batcher.next():
        batches.append(batch)
    return batches


def padded(batch: list[Item]) -> int:
    return len(batch) * max(item.length for item in batch)


lengths = st.lists(st.integers(1, 256), min_size=1, max_size=12)


@given(st.lists(lengths, max_size=20), st.integers(64, 3000), st.booleans(), st.sets(st.integers(0, 19)), st.booleans())
def test_every_text_comes_once_within_the_limits(
    units: list[list[int]], pieces: int, queried: bool, ahead: set[int], pads: bool
) -> None:
    batcher = make(pieces)
    batcher.padded = pads
    if queried:
        batcher.query_came()
    for unit, each in enumerate(units):
        batcher.add(unit, each, ahead=unit in ahead)
    assert len(batcher) == sum(map(len, units))
    left = {unit: len(each) for unit, each in enumerate(units)}
    came: Counter[tuple[int, int]] = Counter()
    limit = min(pieces, 200) if queried else pieces
    passed_over = 0
    for batch in drain(batcher):
        here = {item.unit for item in batch}
        assert len(batch) == 1 or (padded(batch) if pads else sum(item.length for item in batch)) <= limit
        waiting = [unit for unit, rest in left.items() if rest]
        passed_over = 0 if waiting[0] in here else passed_over + 1
        assert passed_over <= AHEAD_TURNS  # nobody starves
        assert not passed_over or next(unit for unit in waiting if unit in ahead) in here
        for item in batch:
            left[item.unit] -= 1
            came[item.unit, item.text] += 1
            assert item.length == units[item.unit][item.text]
    assert came == Counter((unit, text) for unit, each in enumerate(units) for text in range(len(each)))
    assert len(batcher) == 0


def test_a_unit_sent_ahead_does_not_wait_for_those_before_it() -> None:
    batcher = make(100)
    for unit in range(50):
        batcher.add(unit, [20, 40])
    batcher.add(50, [10, 50, 90], ahead=True)
    batches = drain(batcher)
    done = max(number for number, batch in enumerate(batches) if any(item.unit == 50 for item in batch))
    assert done <= AHEAD_TURNS
    assert min(number for number, batch in enumerate(batches) if any(item.unit == 0 for item in batch)) <= AHEAD_TURNS


def test_texts_of_like_length_go_together() -> None:
    batcher = make(400)
    for unit in range(4):
        batcher.add(unit, [10, 100, 50])
    batches = drain(batcher)
    assert [sorted({item.length for item in batch}) for batch in batches] == [[100], [50], [10]]


@given(st.lists(lengths, min_size=1, max_size=20), st.integers(64, 3000))
def test_where_nothing_is_padded_the_nearest_go_together_as_far_as_there_is_room(
    units: list[list[int]], pieces: int
) -> None:
    batcher = make(pieces)
    batcher.padded = False
    for unit, each in enumerate(units):
        batcher.add(unit, each)
    left = sorted(length for each in units for length in each)
    while batch := batcher.next():
        mine = [item.length for item in batch]
        assert len(batch) == 1 or sum(mine) <= pieces
        place = next(place for place in range(len(left)) if left[place : place + len(mine)] == mine)
        del left[place : place + len(mine)]
        if left:  # no more than what comes next to it would have been too much
            assert sum(mine) + max(left[max(0, place - 1) : place + 1]) > pieces
    assert not left


def test_where_nothing_is_padded_queries_go_together_by_their_own_lengths() -> None:
    batcher = make()
    for unit, length in enumerate((12, 20, 150, 50)):  # 200 may go at once
        batcher.add_query(unit, length)
    batcher.padded = False
    assert [item.unit for item in batcher.next()] == [0, 1, 2]
    assert [item.unit for item in batcher.next()] == [3]


def test_a_few_left_over_texts_are_not_worth_batches_of_their_own() -> None:
    dear = make(400, fixed=0.02)  # a batch costs as much as 200 pieces
    dear.add(1, [10, 90])
    assert len(drain(dear)) == 1
    cheap = make(400, fixed=0.005)  # as 50 pieces: less than the padding
    cheap.add(1, [10, 90])
    assert len(drain(cheap)) == 2


def test_queries_overtake_and_go_together() -> None:
    batcher = make()
    batcher.add(1, [50] * 20)
    batcher.add_query(2, 12)
    batcher.add_query(3, 20)
    batcher.add_query(4, 180)
    assert batcher.queries
    assert [item.unit for item in batcher.next()] == [2, 3]
    assert [item.unit for item in batcher.next()] == [4]
    assert not batcher.queries
    assert {item.unit for item in batcher.next()} == {1}


def test_pages_get_a_turn_however_many_queries_come() -> None:
    clock = Clock()
    batcher = make(clock=clock)
    batcher.add(1, [50] * 8)
    kinds = []
    for query in range(100, 160):
        batcher.add_query(query, 12)
        batcher.query_came()
        clock.now += 0.033
        batch = batcher.next()
        kinds.append(batch[0].unit >= 100)
        assert padded(batch) <= 200
    assert kinds[:8] == [True] * 3 + [False] + [True] * 3 + [False]
    assert len(batcher) == 0


def test_batches_stay_short_while_queries_come() -> None:
    clock = Clock()
    batcher = make(600, clock=clock)
    batcher.add(1, [50] * 100)
    assert padded(batcher.next()) == 600
    batcher.query_came()
    clock.now += 0.9
    assert padded(batcher.next()) == 200
    clock.now += 0.2
    assert padded(batcher.next()) == 600


def test_one_text_goes_however_long_it_is() -> None:
    batcher = make(64)
    batcher.add(1, [200, 201])
    batcher.add_query(2, 300)
    assert [len(batch) for batch in drain(batcher)] == [1, 1, 1]


def test_a_dropped_unit_does_not_come() -> None:
    batcher = make()
    batcher.add(1, [10, 11])
    batcher.add(2, [10, 11])
    batcher.add_query(3, 5)
    batcher.drop(1)
    batcher.drop(3)
    batcher.drop(99)
    assert [{item.unit for item in batch} for batch in drain(batcher)] == [{2}]


@given(st.floats(0.0, 0.1), st.floats(1e-6, 1e-3), st.lists(st.integers(1, 4000), min_size=2, max_size=9, unique=True))
def test_the_fit_finds_the_line(fixed: float, per_piece: float, sizes: list[int]) -> None:
    cost = CostModel()
    cost.fit([(x, fixed + per_piece * x) for x in sizes])
    for x in (1, 100, 5000):
        assert cost.seconds(x) == pytest.approx(fixed + per_piece * x, rel=1e-4, abs=1e-6)


@given(st.lists(st.floats(1e-6, 10.0), min_size=2, max_size=6), st.floats(1e-4, 1.0))
def test_noise_never_makes_a_part_negative(seconds: list[float], limit: float) -> None:
    cost = CostModel()
    cost.fit([(64 * (i + 1), s) for i, s in enumerate(seconds)])
    assert cost.fixed >= 0
    assert cost.per_piece > 0
    assert cost.pieces_within(limit) >= cost.fixed_pieces - 1 > 0  # a batch takes at most twice its fixed part


def test_the_pace_follows_the_machine() -> None:
    cost = CostModel()
    cost.fit([(100, 0.02), (500, 0.06)])
    before = cost.pieces_within(0.04)
    assert before == 300
    for _ in range(60):
        cost.observe(300, 0.08)  # twice as slow as measured
    assert cost.seconds(300) == pytest.approx(0.08, rel=0.01)
    assert cost.seconds(100) == pytest.approx(0.04, rel=0.01)
    assert cost.pieces_within(0.04) < before / 2
    assert cost.pieces_within(0.08) == pytest.approx(before, rel=0.05)
