from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.store.seqs import SeqRanges

ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda r: (r[0], r[0] + r[1])), max_size=25)


@given(ranges)
def test_it_behaves_as_a_set_and_tells_what_is_new(added: list[tuple[int, int]]) -> None:
    known, model = SeqRanges(), set[int]()
    for start, stop in added:
        fresh = known.add(start, stop)
        assert [seq for low, high in fresh for seq in range(low, high)] == sorted(set(range(start, stop)) - model)
        model |= set(range(start, stop))
    assert [seq for seq in range(-1, 60) if seq in known] == sorted(model)
    assert len(known) == len(model)
    assert known.end == max(model, default=-1) + 1
    inside = set(range(max(model, default=0)))
    assert {seq for low, high in known.holes() for seq in range(low, high)} == inside - model


@given(ranges)
def test_ranges_that_touch_are_one(added: list[tuple[int, int]]) -> None:
    known = SeqRanges()
    for start, stop in added:
        known.add(start, stop)
    assert all(low < high for low, high in known.holes())


def test_empty_set() -> None:
    known = SeqRanges()
    assert known.add(5, 5) == []
    assert (len(known), known.end, known.holes(), 5 in known) == (0, 0, [], False)
