from __future__ import annotations

import contextlib
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.memory.chains import Chains
from mos_pipeline.messages import decode, encode
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


def snapshot(chains: Chains) -> list[tuple[int, int, int, list[int], str]]:
    """All that can be asked of every page."""
    return [
        (chains.before(seq), chains.after(seq), chains.chain_of(seq), chains.pages_of(seq), chains.overview(seq))
        for seq in range(PAGES + 3)
    ]


def described(chains: Chains) -> Chains:
    for seq in range(0, PAGES, 2):
        chains.set_overview(seq, f"made at {seq}")
    return chains


@law
@given(links, links)
def test_what_can_be_linked_is_linked(pairs: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    chains, _ = linked(pairs)
    for pair in more:
        can = chains.can_link(*pair)
        try:
            chains.link(*pair)
        except InputError:
            assert not can
        else:
            assert can
            assert (chains.after(pair[0]), chains.before(pair[1])) == pair[::-1]


@law
@given(links, st.lists(st.integers(0, PAGES + 2), max_size=6))
def test_no_page_links_to_one_that_was_cut(pairs: list[tuple[int, int]], forgotten: list[int]) -> None:
    chains, taken = linked(pairs)
    described(chains)
    for seq in forgotten:
        whole = chains.pages_of(chains.chain_of(seq))
        assert chains.cut({seq}) == set(whole) - {seq}
        assert [chains.overview(page) for page in whole] == [""] * len(whole)
        assert (chains.before(seq), chains.after(seq), chains.chain_of(seq)) == (-1, -1, seq)
    kept = {(earlier, later) for earlier, later in taken if not {earlier, later} & set(forgotten)}
    assert {(chains.before(seq), seq) for seq in range(PAGES) if chains.before(seq) >= 0} == kept
    once, _ = linked(sorted(kept))
    assert [entry[:4] for entry in snapshot(chains)] == [entry[:4] for entry in snapshot(once)]


@law
@given(links, st.sets(st.integers(0, PAGES + 2), max_size=6))
def test_many_pages_are_cut_at_once_as_one_by_one(pairs: list[tuple[int, int]], forgotten: set[int]) -> None:
    (one_by_one, _), (at_once, _) = linked(pairs), linked(pairs)
    for chains in (one_by_one, at_once):
        described(chains)
    others = {seq for page in sorted(forgotten) for seq in one_by_one.pages_of(one_by_one.chain_of(page))}
    expected = {page for seq in forgotten for page in at_once.pages_of(at_once.chain_of(seq))} - forgotten
    for seq in forgotten:
        one_by_one.cut({seq})
    assert at_once.cut(forgotten) == expected == others - forgotten
    assert snapshot(at_once) == snapshot(one_by_one)


@law
@given(links, st.sets(st.integers(0, PAGES + 2), max_size=6))
def test_pages_that_left_have_no_links_and_the_rest_keeps_what_it_had(
    pairs: list[tuple[int, int]], left: set[int]
) -> None:
    chains, taken = linked(pairs)
    described(chains)
    overviews = {chains.overview(seq) for seq in range(PAGES)} - {""}
    told = {text: {seq for seq in range(PAGES) if chains.overview(seq) == text} for text in overviews}
    chains.cut_all(left)
    kept = {(earlier, later) for earlier, later in taken if not {earlier, later} & left}
    once, _ = linked(sorted(kept))
    assert [entry[:4] for entry in snapshot(chains)] == [entry[:4] for entry in snapshot(once)]
    for text in overviews:
        made_at = int(text.split()[-1])
        lost = any(seq in left for seq in told[text] if seq <= made_at)
        expected = set() if lost else set(chains.pages_of(chains.chain_of(made_at)))
        assert {seq for seq in range(PAGES) if chains.overview(seq) == text} == expected


def test_the_parts_of_a_cut_chain_go_on_by_themselves() -> None:
    chains, _ = linked([(0, 1), (1, 2), (2, 3), (3, 4)])
    chains.set_overview(4, "all five")
    assert chains.cut({2}) == {0, 1, 3, 4}
    assert [chains.pages_of(chains.chain_of(seq)) for seq in range(5)] == [[0, 1], [0, 1], [2], [3, 4], [3, 4]]
    assert [chains.before(seq) for seq in range(6)] == [-1, 0, -1, -1, 3, -1]
    chains.set_overview(3, "the end")
    assert (chains.overview(4), chains.overview(1)) == ("the end", "")
    chains.link(1, 3)
    assert chains.pages_of(0) == [0, 1, 3, 4]


def test_a_page_alone_loses_its_overview_too() -> None:
    chains = Chains()
    chains.set_overview(5, "about a secret")
    assert chains.cut({5}) == set()
    assert chains.overview(5) == ""


@law
@given(links)
def test_chains_are_restored_as_they_were(pairs: list[tuple[int, int]]) -> None:
    chains, _ = linked(pairs)
    described(chains)
    again = Chains()
    again.restore(decode(encode(chains.as_plain(range(PAGES)))))
    assert snapshot(again) == snapshot(chains)
    again.restore(chains.as_plain(range(PAGES)))
    assert snapshot(again) == snapshot(chains)


def test_a_link_that_can_not_be_any_more_is_not_restored() -> None:
    chains, _ = linked([(0, 1), (1, 2)])
    again, _ = linked([(0, 2)])
    again.restore(chains.as_plain(range(3)))
    assert [again.before(seq) for seq in range(3)] == [-1, -1, 0]
