"""The shapes that batches are computed in: every text once, as cheaply as can be, in few different ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.stages.shapes import PART_COST, PART_PIECES, filled_count, filled_length, parts_of

batches = st.lists(st.integers(1, 600), min_size=1, max_size=60).map(sorted)


@given(batches, st.integers(1, 16))
def test_every_text_has_its_place_and_no_part_leaves_the_caches(lengths: list[int], streams: int) -> None:
    parts = parts_of(lengths, streams)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == len(lengths)
    for part in parts:
        count = part.stop - part.start
        assert count == 1 or part.pieces <= PART_PIECES
        assert (part.texts, part.length) == (filled_count(count), filled_length(lengths[part.stop - 1]))


def cost(lengths: Sequence[int], edges: Sequence[int]) -> int:
    return sum(
        filled_count(stop - start) * filled_length(lengths[stop - 1]) + PART_COST
        for start, stop in itertools.pairwise(edges)
    )


@given(st.lists(st.integers(1, 100), min_size=1, max_size=7).map(sorted))
def test_no_other_division_costs_less(lengths: list[int]) -> None:
    found = parts_of(lengths, 1)
    inner = range(1, len(lengths))
    every = (
        [0, *between, len(lengths)]
        for count in range(len(lengths))
        for between in itertools.combinations(inner, count)
        if all(
            stop - start == 1 or (stop - start) * filled_length(lengths[stop - 1]) <= PART_PIECES
            for start, stop in itertools.pairwise([0, *between, len(lengths)])
        )
    )
    assert cost(lengths, [0, *(part.stop for part in found)]) == min(cost(lengths, edges) for edges in every)


@given(st.integers(1, 10_000))
def test_filling_up_costs_little_and_what_is_full_stays(length: int) -> None:
    filled = filled_length(length)
    assert length <= filled <= max(8, filled_length(length + 1))
    assert filled - length < max(8, length / 4)
    assert filled_length(filled) == filled
    assert filled_count(length) / 2 < length <= filled_count(length)


def test_there_are_few_shapes() -> None:
    assert [filled_length(length) for length in (1, 8, 9, 64, 65, 128, 129, 256)] == [8, 8, 16, 64, 80, 128, 160, 256]
    assert len({filled_length(length) for length in range(1, 513)}) == 20


@pytest.mark.parametrize(
    ("lengths", "streams", "shapes"),
    [
        ([64] * 16, 2, [(8, 64)] * 2),
        ([12], 2, [(1, 16)]),
        ([5, 5, 5], 2, [(4, 8)]),
        ([72] * 64, 2, [(8, 80)] * 8),
        ([64] * 24, 4, [(4, 64)] * 6),
        ([64] * 24, 2, [(4, 64)] * 6),
        ([16] * 54 + [160], 4, [(8, 16), (16, 16), (16, 16), (16, 16), (1, 160)]),
        ([256] * 3, 2, [(1, 256), (2, 256)]),
        ([8] * 32 + [100] * 4, 2, [(32, 8), (4, 112)]),
    ],
    ids=[
        "a half each",
        "one",
        "too few to divide",
        "large",
        "more streams",
        "two rounds",
        "one long text",
        "long",
        "short and long ones",
    ],
)
def test_streams_work_side_by_side(lengths: list[int], streams: int, shapes: list[tuple[int, int]]) -> None:
    assert [(part.texts, part.length) for part in parts_of(lengths, streams)] == shapes
