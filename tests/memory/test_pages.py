from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.memory.page_ids import PageIds
from mos_pipeline.memory.pages import FORGOTTEN, LOST, PageTable
from tests.memory import law

TAG = "00c0ffee00c0ffee"


def auto(seq: int, more: str = "") -> str:
    return f"{TAG}-{seq:012x}{more}"


@law
@given(st.lists(st.integers(0, 4), max_size=80))
def test_each_scope_has_its_pages_in_order(scopes: list[int]) -> None:
    table = PageTable()
    for seq, scope in enumerate(scopes):
        table.append(seq, scope)
    assert len(table) == len(scopes)
    assert [table.scope(seq) for seq in range(len(scopes))] == scopes
    for scope in range(6):
        seqs = table.seqs_of(scope)
        assert seqs.dtype == np.dtype(np.int64)
        assert seqs.tolist() == [seq for seq, owner in enumerate(scopes) if owner == scope]
        assert table.count_of(scope) == len(seqs)


@law
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 1 << 40)), max_size=30))
def test_rows_are_kept_page_by_page(changes: list[tuple[int, int]]) -> None:
    table = PageTable()
    for seq in range(10):
        table.append(seq, 0)
    expected = dict.fromkeys(range(10), -1)
    for seq, row in changes:
        table.set_row(seq, row)
        expected[seq] = row
    assert {seq: table.row(seq) for seq in range(10)} == expected


def test_a_view_of_a_scopes_pages_stays_as_it_was() -> None:
    table = PageTable()
    table.append(0, 3)
    view = table.seqs_of(3)
    for seq in range(1, 100):
        table.append(seq, 3)
    assert view.tolist() == [0]
    assert table.seqs_of(3).tolist() == list(range(100))
    with pytest.raises(ValueError, match="read-only"):
        table.seqs_of(3)[0] = 5


@pytest.mark.parametrize(("seq", "scope"), [(0, 0), (2, 0), (1, -1), (1, 1 << 32)])
def test_a_page_that_does_not_follow_is_refused(seq: int, scope: int) -> None:
    table = PageTable()
    table.append(0, 0)
    with pytest.raises(InputError, match=f"page {seq}"):
        table.append(seq, scope)
    assert (len(table), table.count_of(0), table.count_of(scope)) == (1, 1, scope == 0)


@pytest.mark.parametrize("seq", [-1, 1])
def test_there_is_nothing_to_know_of_a_page_that_is_not_there(seq: int) -> None:
    table = PageTable()
    table.append(0, 0)
    for ask in (table.row, table.scope, lambda at: table.set_row(at, 1)):
        with pytest.raises(IndexError):
            ask(seq)


looks_automatic = st.builds(auto, st.integers(0, 12), st.sampled_from(["", "+", "++"]))
given_ids = st.none() | st.sampled_from(["mine", "yours", ""]) | looks_automatic


def accepted(ids: PageIds, wanted: list[str | None]) -> list[str | None]:
    """Accept pages as a store does: an id that is known is one page already. Return the new pages' given ids."""
    pages: list[str | None] = []
    for page_id in wanted:
        if page_id is None or ids.resolve(page_id) is None:
            ids.register(page_id, len(pages))
            pages.append(page_id)
    return pages


@law
@given(st.lists(given_ids, max_size=25))
def test_every_page_has_one_id_for_ever_and_every_id_one_page(wanted: list[str | None]) -> None:
    ids = PageIds(TAG)
    pages: list[str | None] = []
    names: list[str] = []
    for page_id in wanted:
        if page_id is not None and ids.resolve(page_id) is not None:
            assert page_id in names
            continue
        assert page_id not in names
        ids.register(page_id, len(pages))
        pages.append(page_id)
        names.append(ids.id_of(len(pages) - 1, page_id))
        assert names == [ids.id_of(seq, own) for seq, own in enumerate(pages)]
        assert [ids.resolve(name) for name in names] == list(range(len(names)))
    for seq in range(14):
        for more in ("", "+", "++", "+++"):
            found = ids.resolve(auto(seq, more))
            assert found is None or names[found] == auto(seq, more)


@law
@given(st.lists(given_ids, max_size=25))
def test_ids_mean_the_same_after_reopening(wanted: list[str | None]) -> None:
    ids, again = PageIds(TAG), PageIds(TAG)
    pages = accepted(ids, wanted)
    for seq, page_id in enumerate(pages):
        again.register(page_id, seq)
    assert [again.id_of(seq, own) for seq, own in enumerate(pages)] == [
        ids.id_of(seq, own) for seq, own in enumerate(pages)
    ]
    for seq in range(14):
        assert again.resolve(auto(seq)) == ids.resolve(auto(seq))


def test_an_automatic_id_means_a_page_from_its_acceptance_on() -> None:
    ids = PageIds(TAG)
    assert ids.resolve(auto(0)) is None
    ids.register(None, 0)
    assert (ids.id_of(0, None), ids.resolve(auto(0)), ids.resolve(auto(1))) == (auto(0), 0, None)


def test_a_given_id_never_means_a_page_to_come() -> None:
    ids = PageIds(TAG)
    ids.register(auto(2), 0)
    ids.register(auto(2, "+"), 1)
    ids.register(None, 2)
    assert ids.id_of(2, None) == auto(2, "++")
    assert [ids.resolve(auto(2)), ids.resolve(auto(2, "+")), ids.resolve(auto(2, "++"))] == [0, 1, 2]


def test_an_accepted_pages_automatic_id_can_not_be_given_again() -> None:
    ids = PageIds(TAG)
    ids.register(None, 0)
    with pytest.raises(InputError, match="that of page 0"):
        ids.register(auto(0), 1)
    ids.register(auto(1), 1)
    assert ids.resolve(auto(1)) == 1


def test_a_page_with_a_given_id_has_no_automatic_one() -> None:
    ids = PageIds(TAG)
    ids.register("mine", 0)
    assert ids.resolve(auto(0)) is None
    ids.register(auto(0), 1)
    assert (ids.resolve("mine"), ids.resolve(auto(0))) == (0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TAG,
        f"{TAG}-0",
        f"{TAG}-00000000000A",
        f"{TAG}-00000000000a ",
        f"{TAG}-0_000000000a",
        "+",
        f"{TAG}-" + "0" * 13,
    ],
)
def test_only_the_very_text_is_an_automatic_id(text: str) -> None:
    ids = PageIds(TAG)
    for seq in range(11):
        ids.register(None, seq)
    assert ids.resolve(auto(10)) == 10
    assert ids.resolve(text) is None
    assert ids.resolve(auto(10).replace(TAG, "0" * 16)) is None


def test_pages_are_registered_in_order() -> None:
    ids = PageIds(TAG)
    ids.register("a", 4)
    with pytest.raises(InputError, match="in order"):
        ids.register("b", 4)
    with pytest.raises(InputError, match="'a' is that of page 4"):
        ids.register("a", 5)
    assert (ids.resolve("b"), ids.resolve("a")) == (None, 4)


@pytest.mark.parametrize("tag", ["", "abc", "00C0FFEE00C0FFEE", "g" * 16, "0" * 17])
def test_a_tag_is_16_hexadecimal_digits(tag: str) -> None:
    with pytest.raises(InputError, match="16 hexadecimal digits"):
        PageIds(tag)


@law
@given(st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=6))
def test_pages_entered_together_are_entered_one_by_one(parts: list[list[int]]) -> None:
    one, together = PageTable(), PageTable()
    for part in parts:
        for scope in part:
            one.append(len(one), scope)
        together.extend(np.array(part, np.uint32))
    assert len(together) == len(one)
    for scope in range(6):
        assert together.seqs_of(scope).tolist() == one.seqs_of(scope).tolist()
        assert together.count_of(scope) == one.count_of(scope)
    assert [(together.scope(seq), together.row(seq)) for seq in range(len(one))] == [
        (one.scope(seq), one.row(seq)) for seq in range(len(one))
    ]


def test_which_pages_have_a_vector() -> None:
    table = PageTable()
    assert table.embedded_of(np.empty(0, np.int64)).tolist() == []
    table.extend(np.zeros(5, np.uint32))
    table.set_row(1, 0)
    table.set_row(4, 9)
    assert table.embedded_of(np.array([4, 0, 1, 2])).tolist() == [True, False, True, False]
    table.append(5, 0)  # the table can grow again


# forgetting

owners = st.lists(st.sampled_from([0, 1, 2, LOST, FORGOTTEN]), max_size=40)


@law
@given(owners, st.lists(st.sets(st.integers(0, 39), max_size=6), max_size=5), owners)
def test_forgotten_pages_are_nobodys(first: list[int], forgotten: list[set[int]], more: list[int]) -> None:
    table = PageTable()
    table.extend(np.array(first, np.uint32))
    expected = list(first)
    for seq in range(0, len(first), 2):
        table.set_row(seq, seq)
    views = [(table.seqs_of(scope), table.seqs_of(scope).tolist()) for scope in (0, 1, 2, LOST, FORGOTTEN)]
    for seqs in forgotten:
        mine = [seq for seq in seqs if seq < len(first)]
        table.forget(mine)
        for seq in mine:
            expected[seq] = LOST if expected[seq] == LOST else FORGOTTEN
    for scope in more:
        table.append(len(table), scope)
    expected += more
    assert [table.scope(seq) for seq in range(len(table))] == expected
    for scope in (0, 1, 2, LOST, FORGOTTEN):
        assert table.seqs_of(scope).tolist() == [seq for seq, owner in enumerate(expected) if owner == scope]
        assert table.count_of(scope) == expected.count(scope)
    kept = [seq for seq, owner in enumerate(expected) if owner < FORGOTTEN]
    assert table.kept == len(kept)
    for offset in range(0, len(expected) + 2, 3):
        assert table.slice(offset, 4) == kept[offset : offset + 4]
    with_row = [seq for seq in range(0, len(first), 2) if expected[seq] == first[seq]]
    assert [seq for seq in range(len(table)) if table.row(seq) >= 0] == with_row
    assert table.embedded == len(with_row)
    assert [view.tolist() for view, _ in views] == [before for _, before in views]


@pytest.mark.parametrize("seq", [-1, 3])
def test_a_page_that_is_not_there_can_not_be_forgotten(seq: int) -> None:
    table = PageTable()
    table.extend(np.zeros(3, np.uint32))
    with pytest.raises(IndexError, match=f"page {seq}"):
        table.forget([1, seq])
    assert table.kept == 3


def test_a_number_can_be_entered_as_forgotten() -> None:
    table = PageTable()
    table.append_forgotten()
    table.append(1, 0)
    assert (table.kept, len(table), table.slice(0, 5)) == (1, 2, [1])


@law
@given(st.lists(given_ids, max_size=20), st.sets(st.integers(0, 19)), st.lists(given_ids, max_size=10))
def test_forgotten_ids_mean_no_page_and_all_others_what_they_did(
    wanted: list[str | None], forgotten: set[int], more: list[str | None]
) -> None:
    ids = PageIds(TAG)
    pages = accepted(ids, wanted)
    names = [ids.id_of(seq, own) for seq, own in enumerate(pages)]
    gone = {seq for seq in forgotten if seq < len(pages)}
    for seq in gone:
        ids.forget(seq, pages[seq])
    expected = {name: None if seq in gone else seq for seq, name in enumerate(names)}
    assert {name: ids.resolve(name) for name in names} == expected
    count = len(pages)
    for page_id in more:
        if page_id is None or ids.resolve(page_id) is None:
            ids.register(page_id, count)
            name = ids.id_of(count, page_id)
            assert expected.get(name) is None
            assert page_id is not None or name not in names  # the library doesn't make it again
            expected[name] = count
            count += 1
    assert {name: ids.resolve(name) for name in expected} == expected
    assert [ids.id_of(seq, own) for seq, own in enumerate(pages) if seq not in gone] == [
        name for seq, name in enumerate(names) if seq not in gone
    ]


def test_a_given_id_can_be_given_again() -> None:
    ids = PageIds(TAG)
    ids.register("mine", 0)
    ids.forget(0, "mine")
    assert ids.resolve("mine") is None
    ids.register("mine", 1)
    assert (ids.resolve("mine"), ids.resolve(auto(0))) == (1, None)


def test_a_page_that_made_room_for_a_given_id_keeps_its_own() -> None:
    ids = PageIds(TAG)
    ids.register(auto(2), 0)
    ids.register(None, 2)
    ids.forget(0, auto(2))
    assert (ids.id_of(2, None), ids.resolve(auto(2)), ids.resolve(auto(2, "+"))) == (auto(2, "+"), None, 2)
    ids.register(auto(2), 3)
    assert (ids.id_of(2, None), ids.resolve(auto(2)), ids.resolve(auto(2, "+"))) == (auto(2, "+"), 3, 2)


@pytest.mark.parametrize(("seq", "page_id"), [(2, None), (-1, None), (0, "yours"), (1, "mine")])
def test_only_a_page_with_that_id_is_forgotten(seq: int, page_id: str | None) -> None:
    ids = PageIds(TAG)
    ids.register("mine", 0)
    ids.register(None, 1)
    with pytest.raises(InputError, match=f"page {seq} can't be forgotten"):
        ids.forget(seq, page_id)
    assert (ids.resolve("mine"), ids.resolve(auto(1))) == (0, 1)
