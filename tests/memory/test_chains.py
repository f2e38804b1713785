from __future__ import annotations

import contextlib
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.memory.chains import Chains
from tests.memory import law

PAGES = 14
links = st.lists(st.tuples(st.integers(-2, PAGES - 1), st.integers(-2, PAGES - 1)), max_size=40)


def linked(pairs: list[tuple[int, int]]) -> tuple[Chains, list[tuple[int, int]]]:
    """Link what can be linked; return the links that were taken."""
    chains, taken = Chains(), []
    for pair in pairs:
        with contextlib.suppress(InputError):
            chains.link(*pair)
            taken.append(pair)
    return chains, taken


@law
@given(links)
def test_a_page_has_one_neighbour_on_each_side_and_no_other_link_is_taken(pairs: list[tuple[int, int]]) -> None:
    _, taken = linked(pairs)
    wanted: dict[int, int] = {}
    for earlier, later in pairs:
        if 0 <= earlier < later and wanted.get(earlier, later) == later:
            before = next((e for e, after in wanted.items() if after == later), earlier)
            if before == earlier:
                wanted[earlier] = later
    assert set(taken) == set(wanted.items())


@law
@given(links)
def test_chains_ascend_and_every_page_is_in_one(pairs: list[tuple[int, int]]) -> None:
    chains, taken = linked(pairs)
    ids = {chains.chain_of(seq) for seq in range(PAGES)}
    pages = [chains.pages_of(chain) for chain in sorted(ids)]
    assert sorted(seq for chain in pages for seq in chain) == list(range(PAGES))
    for chain in pages:
        assert chain == sorted(chain)
        assert {chains.chain_of(seq) for seq in chain} == {chain[0]}
    neighbours = {pair for chain in pages for pair in pairwise(chain)}
    assert neighbours == set(taken)


@law
@given(links, st.randoms(use_true_random=False))
def test_links_may_come_in_any_order(pairs: list[tuple[int, int]], shuffle: random.Random) -> None:
    chains, taken = linked(pairs)
    shuffle.shuffle(taken)
    other, _ = linked(taken)
    assert [other.chain_of(seq) for seq in range(PAGES)] == [chains.chain_of(seq) for seq in range(PAGES)]


def test_an_overview_is_that_of_the_whole_chain() -> None:
    chains, _ = linked([(1, 4), (4, 6)])
    chains.set_overview(4, "tea, then cups")
    assert [chains.overview(seq) for seq in (1, 4, 6)] == ["tea, then cups"] * 3
    assert chains.overview(2) == chains.overview(50) == chains.overview(-1) == ""
    chains.link(6, 9)
    assert chains.overview(9) == "tea, then cups"
    chains.set_overview(9, "pots")
    assert chains.overview(1) == "pots"


def test_the_same_link_twice_is_one() -> None:
    chains, taken = linked([(0, 1), (1, 3), (0, 1)])
    assert taken == [(0, 1), (1, 3), (0, 1)]
    assert chains.pages_of(0) == [0, 1, 3]


def test_an_overview_made_at_an_earlier_page_does_not_replace_a_later_one() -> None:
    chains = Chains()
    chains.link(1, 5)
    chains.set_overview(5, "tea and cups")
    chains.set_overview(1, "tea")  # a batch that was lost and made again
    assert chains.overview(5) == "tea and cups"
    chains.set_overview(5, "tea, again")
    assert chains.overview(1) == "tea, again"


@pytest.mark.parametrize(("first", "second", "together"), [("a", "b", "a"), (None, "b", "b"), ("a", None, "a")])
def test_of_two_chains_that_meet_the_earlier_ones_overview_stands(
    first: str | None, second: str | None, together: str
) -> None:
    chains, _ = linked([(0, 1), (2, 3)])
    for seq, text in ((1, first), (3, second)):
        if text is not None:
            chains.set_overview(seq, text)
    chains.link(1, 2)
    assert [chains.overview(seq) for seq in range(4)] == [together] * 4


@pytest.mark.parametrize("pair", [(3, 3), (4, 3), (-1, 3), (0, 2), (1, 5), (5, 2)])
def test_a_link_that_can_not_be_changes_nothing(pair: tuple[int, int]) -> None:
    chains, _ = linked([(0, 1), (1, 2)])
    before = [chains.pages_of(seq) for seq in range(PAGES)]
    with pytest.raises(InputError, match=f"page {pair[1]} can't continue page {pair[0]}"):
        chains.link(*pair)
    assert [chains.pages_of(seq) for seq in range(PAGES)] == before
