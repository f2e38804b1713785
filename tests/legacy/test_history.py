"""One order of a user's pages: each once, in one session, after those that it follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.legacy.history import History, history_of
from mos_pipeline.legacy.model import LegacyPage, LegacySession, LegacyUser, Problem


def page(number: int, day: int | None = None, **fields: object) -> LegacyPage:
    """Return a page of a session."""
    timestamp = f"2026-01-{day:02} 10:00:00" if day else ""
    return replace(LegacyPage(f"said {number}", "answered", timestamp, f"p{number}"), **fields)  # type: ignore[arg-type]


def user(*sessions: list[LegacyPage], short: tuple[LegacyPage, ...] = ()) -> LegacyUser:
    """Return a user with these pages in sessions and in short-term memory."""
    made = (
        LegacySession(f"s{number}", f"summary {number}", (), "", tuple(pages)) for number, pages in enumerate(sessions)
    )
    return LegacyUser("tom", tuple(replace(one, page_id="") for one in short), tuple(made))


def told(whose: LegacyUser) -> tuple[History, list[Problem]]:
    """Return the history, and what is wrong."""
    problems: list[Problem] = []
    return history_of(whose, problems), problems


def test_time_orders_pages_of_different_sessions() -> None:
    history, _ = told(user([page(1, 1), page(4, 4)], [page(2, 2), page(3, 3)], short=(page(5, 5), page(0, 1))))
    assert [one.page.user_input for one in history.pages] == [f"said {number}" for number in (1, 2, 3, 4, 5, 0)]
    assert [one.in_mid_term for one in history.pages] == [True] * 4 + [False] * 2


def test_links_and_a_sessions_own_order_count_more_than_time() -> None:
    linked = page(1, 9, after="p2")
    history, problems = told(user([linked], [page(2, 1, before="p1"), page(3, 0)]))
    assert [one.key for one in history.pages] == ["p1", "p2", "p3"]
    assert (history.links.links, problems) == ((("p1", "p2"),), [])


def test_a_page_in_two_sessions_is_one_page() -> None:
    near = np.array([1, 0], np.float16), np.array([0, 1], np.float16)
    shared = page(1, vector=near[1])
    whose = user([shared, page(2)], [page(1, analyzed=True, vector=near[1]), page(3)])
    sessions = tuple(replace(one, vector=vector) for one, vector in zip(whose.sessions, near, strict=True))
    history, problems = told(replace(whose, sessions=sessions))
    assert [one.key for one in history.pages].count("p1") == 1
    assert [one.pages for one in history.sessions] == [("p2",), ("p1", "p3")]
    assert [one.tells_of for one in history.sessions] == [("p1",), ()]
    assert history.sessions[1].fresh == ("p3",)
    assert problems == []


def test_a_session_whose_pages_are_all_in_others_gets_one_where_that_can_be() -> None:
    history, problems = told(user([page(1), page(2)], [page(1), page(2)]))
    assert sorted(len(one.pages) for one in history.sessions) == [1, 1]
    assert problems == []
    history, problems = told(user([page(1)], [page(1)], []))
    assert [one.pages for one in history.sessions] == [("p1",)]
    assert len(problems) == 2


def test_a_page_of_both_memories_is_one_page() -> None:
    history, _ = told(user([page(1, 1)], short=(page(1, 1), page(2, 2), page(2, 2))))
    assert [one.page.user_input for one in history.pages] == ["said 1", "said 2", "said 2"]
    assert len({one.key for one in history.pages}) == 3


def test_two_pages_with_one_id_are_two() -> None:
    other = replace(page(1), user_input="something else")
    history, _ = told(user([page(1), other]))
    assert len({one.key for one in history.pages}) == 2


def test_links_that_can_not_be_are_named() -> None:
    circle = [page(1, before="p2", after="p2"), page(2, before="p1", after="p1")]
    history, problems = told(user(circle))
    assert history.links.links == (("p1", "p2"),)
    assert {one.field.rpartition(".")[2] for one in problems} == {"pre_page", "next_page"}
    history, problems = told(user([page(1), page(2, before="p1"), page(3, before="p1"), page(4, before="gone")]))
    assert (history.links.links, history.links.loose, len(problems)) == ((("p1", "p2"),), 1, 1)


def test_a_chains_overview_is_that_of_its_last_page_that_has_one() -> None:
    chain = [page(1, overview="old"), page(2, before="p1", overview="new"), page(3, before="p2"), page(4, overview="x")]
    assert told(user(chain))[0].links.overviews == (("p2", "new"), ("p4", "x"))


ANY_PAGE = st.builds(
    lambda number, day, before, after, analyzed: page(number, day, before=before, after=after, analyzed=analyzed),
    st.integers(0, 6),
    st.integers(0, 28),
    st.sampled_from(["", *(f"p{number}" for number in range(8))]),
    st.sampled_from(["", *(f"p{number}" for number in range(8))]),
    st.booleans(),
)
ANY_PAGES = st.lists(ANY_PAGE, max_size=6)


@given(st.lists(ANY_PAGES, max_size=4), ANY_PAGES)
def test_whatever_a_folder_says_each_page_comes_once_and_in_one_session(
    sessions: list[list[LegacyPage]], short: list[LegacyPage]
) -> None:
    whose = user(*sessions, short=tuple(short))
    history, problems = told(whose)
    keys = [one.key for one in history.pages]
    assert len(set(keys)) == len(keys)
    mid = [one.key for one in history.pages if one.in_mid_term]
    assert sorted(key for one in history.sessions for key in one.pages) == sorted(mid)
    assert {one.page.content for one in history.pages} == {
        one.content for part in (*sessions, whose.short) for one in part
    }
    places = {key: at for at, key in enumerate(keys)}
    before, after = [later for _, later in history.links.links], [earlier for earlier, _ in history.links.links]
    assert len(set(before)) == len(before) and len(set(after)) == len(after)
    assert all(places[earlier] < places[later] for earlier, later in history.links.links)
    empty = len(whose.sessions) - len(history.sessions)
    assert len([one for one in problems if "no page that is not" in one.reason]) == empty
    assert told(whose)[0].pages == history.pages
