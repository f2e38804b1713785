from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.memory.ring import ShortTermRing
from tests.memory import law


@law
@given(st.integers(1, 12), st.integers(0, 60))
def test_every_item_is_in_one_batch_and_the_latest_stay(capacity: int, count: int) -> None:
    ring = ShortTermRing(capacity)
    batches = []
    for seq in range(count):
        batch = ring.append(seq)
        if batch is not None:
            batches.append(batch)
            assert ring.latest() == list(batch)
        assert ring.latest() == list(range(max(0, seq + 1 - capacity), seq + 1))
        assert len(ring) == min(seq + 1, capacity)
    whole = count // capacity * capacity
    assert [seq for batch in batches for seq in batch] == list(range(whole))
    assert all(len(batch) == capacity for batch in batches)
    assert ring.tail == list(range(whole, count))


@law
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40), st.integers(0, 40))
def test_a_restored_ring_goes_on_where_it_was(before: int, after: int, first: int, more: int) -> None:
    old = ShortTermRing(before)
    for seq in range(first):
        old.append(seq)
    ring = ShortTermRing(after)
    unbatched = len(old.tail)
    due = ring.restore(range(first), unbatched)
    due += [batch for seq in range(first, first + more) if (batch := ring.append(seq)) is not None]
    waiting = range(first - unbatched, first + more)
    assert [seq for batch in due for seq in batch] + ring.tail == list(waiting)
    assert {len(batch) for batch in due} <= {after}
    assert ring.latest() == list(range(max(0, first + more - after), first + more))


def test_a_smaller_ring_gives_out_what_became_due() -> None:
    ring = ShortTermRing(3)
    assert ring.restore([1, 2, 3, 4, 5, 6, 7, 8], 7) == [(2, 3, 4), (5, 6, 7)]
    assert (ring.latest(), ring.tail) == ([6, 7, 8], [8])


def test_of_many_items_the_latest_are_kept() -> None:
    ring = ShortTermRing(3)
    assert ring.restore(range(10), 0) == []
    assert ring.latest() == [7, 8, 9]


def test_restoring_replaces_what_was_there() -> None:
    ring = ShortTermRing(3)
    for seq in range(5):
        ring.append(seq)
    assert ring.restore([40], 0) == []
    assert (ring.latest(), ring.tail, ring.capacity) == ([40], [], 3)


@pytest.mark.parametrize("unbatched", [-1, 3])
def test_more_unbatched_than_items_is_refused(unbatched: int) -> None:
    with pytest.raises(InputError, match=f"{unbatched} of 2 items"):
        ShortTermRing(4).restore([1, 2], unbatched)


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(InputError, match=r"short_term\.capacity"):
        ShortTermRing(0)


# What is appended, or how far back lies what is removed: mostly pages that are still in the ring.
steps = st.lists(st.one_of(st.none(), st.none(), st.sets(st.integers(1, 9), max_size=4)), max_size=60)


@law
@given(st.integers(1, 7), steps)
def test_what_is_removed_is_in_no_ring_and_no_batch(capacity: int, history: list[set[int] | None]) -> None:
    ring, latest, tail, seq = ShortTermRing(capacity), list[int](), list[int](), 0
    for back in history:
        if back is None:
            tail.append(seq)
            latest = [*latest, seq][-capacity:]
            expected = tuple(tail) if len(tail) == capacity else None
            tail = [] if expected else tail
            assert ring.append(seq) == expected
            seq += 1
        else:
            removed = {seq - far for far in back}
            ring.remove(removed)
            latest = [item for item in latest if item not in removed]
            tail = [item for item in tail if item not in removed]
        assert (ring.latest(), ring.tail, len(ring), ring.capacity) == (latest, tail, len(latest), capacity)
