from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.dead import DeadPages
from tests.memory import law

sizes = st.integers(0, 50) | st.integers(0, (1 << 32) - 1)
acts = st.lists(
    st.tuples(st.just("enter"), sizes)
    | st.tuples(st.sampled_from(["die", "clear"]), st.sets(st.integers(0, 30), max_size=8)),
    max_size=50,
)


def check(pages: DeadPages, kept: dict[int, int], dead: dict[int, int]) -> None:
    assert (len(pages), pages.seqs) == (len(dead), set(dead))
    present = {**kept, **dead}
    expected = max(len(dead) / len(present), sum(dead.values()) / sum(present.values())) if dead else 0.0
    assert pages.share == pytest.approx(expected)


@law
@given(acts)
def test_the_share_is_that_of_pages_or_of_bytes(history: list[tuple[str, int | set[int]]]) -> None:
    pages, kept, dead = DeadPages(), dict[int, int](), dict[int, int]()
    entered = list[int]()
    for act, value in history:
        if isinstance(value, int):
            if value:
                kept[len(entered)] = value
            entered.append(value)
            pages.enter(value)
        elif act == "die":
            dying = sorted(value & kept.keys())
            dead |= {seq: kept.pop(seq) for seq in dying}
            pages.add(dying)
        else:
            dead = {seq: size for seq, size in dead.items() if seq not in value}
            pages.clear(value)
        check(pages, kept, dead)
    again = DeadPages()
    again.restore([kept.get(seq, 0) for seq in range(len(entered))], dead)
    check(again, kept, dead)
    again.enter(7)
    check(again, {**kept, len(entered): 7}, dead)


@law
@given(st.lists(st.tuples(st.integers(1, 10_000), st.booleans()), min_size=1, max_size=30), st.integers(0, 5000))
def test_no_more_of_the_disk_is_dead_than_the_share_says(drawn: list[tuple[int, bool]], beside: int) -> None:
    """Whatever a page takes beside its record, if it is the same for all."""
    pages = DeadPages()
    for size, _ in drawn:
        pages.enter(size)
    pages.add(seq for seq, (_, dead) in enumerate(drawn) if dead)
    everything = sum(size + beside for size, _ in drawn)
    assert sum(size + beside for size, dead in drawn if dead) / everything <= pages.share + 1e-9
