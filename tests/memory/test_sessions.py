from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline import config
from mos_pipeline.memory.heat import heat
from mos_pipeline.memory.sessions import MidTerm, Session
from mos_pipeline.messages import decode, encode
from tests.memory import law

HOUR = 3600.0


class Topic(NamedTuple):
    session_id: int
    seqs: list[int]
    keywords: list[str]
    summary: str = "a summary"
    timestamp: str = "2024-05-01 10:00:00"
    row: int = 3


words = st.lists(st.sampled_from(["tea", "Tea", "cup", "pot", "milk"]), max_size=4)
topics = st.lists(st.builds(Topic, st.integers(0, 5), st.lists(st.integers(0, 40), max_size=8), words), max_size=12)


def empty(**settings: Any) -> MidTerm:
    return MidTerm(config.MidTerm(**settings))


def filled(placements: list[Topic], threshold: float = 0.6, **settings: Any) -> MidTerm:
    memory = empty(similarity_threshold=threshold, **settings)
    for placement in placements:
        memory.apply(placement, 0.0)
    return memory


def place(memory: MidTerm, keywords: list[str], cosines: dict[int, float]) -> int | None:
    return memory.place(keywords, np.array(list(cosines), np.int64), np.array(list(cosines.values()), np.float32))


@law
@given(topics)
def test_each_page_is_in_the_session_it_came_to_first(placements: list[Topic]) -> None:
    memory = filled(placements)
    expected: dict[int, int] = {}
    for placement in placements:
        for seq in placement.seqs:
            expected.setdefault(seq, placement.session_id)
    assert {seq: memory.session_of(seq) for seq in range(-1, 42) if memory.session_of(seq) is not None} == expected
    for session in memory.sessions:
        assert session.seqs.tolist() == sorted(seq for seq, owner in expected.items() if owner == session.session_id)
    assert len(memory) == len({placement.session_id for placement in placements})


def everything(memory: MidTerm) -> list[Any]:
    return [[*session.as_plain(), session.row] for session in memory.sessions]


@law
@given(topics)
def test_applying_a_placement_again_changes_nothing(placements: list[Topic]) -> None:
    memory = filled(placements)
    once = everything(memory)
    for placement in placements:
        memory.apply(placement, HOUR)
    assert everything(memory) == once


@law
@given(topics, words, st.floats(-1, 1, width=32), st.floats(0, 2))
def test_a_topic_joins_the_best_session_or_founds_one(
    placements: list[Topic], keywords: list[str], cosine: float, threshold: float
) -> None:
    memory = filled(placements, threshold)
    cosines = {session.session_id: cosine for session in memory.sessions}
    scores = {}
    wanted = {word.casefold() for word in keywords}
    for session in memory.sessions:
        either = wanted | session.keywords
        scores[session.session_id] = cosine + (len(wanted & session.keywords) / len(either) if either else 0.0)
    best = min(scores, key=lambda session_id: (-scores[session_id], session_id), default=None)
    expected = best if best is not None and scores[best] >= threshold else None
    assert place(memory, keywords, cosines) == expected
    backwards = dict(reversed(cosines.items()))
    assert place(memory, keywords, backwards) == expected


def test_joining_unites_keywords_and_keeps_the_founders_summary() -> None:
    memory = filled([Topic(0, [1], ["Tea"], "tea", "long ago", 7), Topic(0, [2], ["POT"], "pots", "later", 8)])
    session = memory.get(0)
    assert session is not None
    assert (session.summary, session.timestamp, session.row) == ("tea", "long ago", 7)
    assert session.keywords == {"tea", "pot"}
    assert session.seqs.tolist() == [1, 2]


@pytest.mark.parametrize(("cosine", "joins"), [(0.5, 0), (0.4375, None)])
def test_the_threshold_itself_is_enough(cosine: float, joins: int | None) -> None:
    memory = filled([Topic(0, [1], ["tea", "pot"])], threshold=1.0)
    assert place(memory, ["tea"], {0: cosine}) == joins


def test_of_equal_sessions_the_oldest_is_joined() -> None:
    memory = filled([Topic(session_id, [session_id], []) for session_id in range(3)])
    assert place(memory, [], {2: 0.75, 1: 0.75, 0: 0.5}) == 1


def test_the_first_topic_founds_a_session() -> None:
    assert place(empty(similarity_threshold=0.0), ["tea"], {}) is None


def test_a_session_that_is_only_reserved_can_be_joined_by_its_vector() -> None:
    memory = empty()
    reserved = memory.reserve_id()
    assert place(memory, ["tea"], {reserved: 0.75}) == reserved


def test_ids_are_never_given_out_twice() -> None:
    memory = filled([Topic(4, [1], [])])
    assert [memory.reserve_id(), memory.reserve_id()] == [5, 6]
    memory.apply(Topic(5, [2], []), 0.0)
    assert memory.reserve_id() == 7
    assert memory.get(6) is None


# heat


def test_founding_and_joining_heat_a_session() -> None:
    memory = empty(heat_alpha=2.0, heat_beta=3.0, heat_gamma=5.0, recency_hours=12.0)
    memory.apply(Topic(0, [4, 2], []), 10 * HOUR)
    session = session_of(memory, 2)
    assert (session.visits, session.interactions, session.accesses, session.fresh.tolist()) == (0, 2, 0, [2, 4])
    assert session.last_visit == 10 * HOUR
    memory.apply(Topic(0, [4, 6], []), 12 * HOUR)
    assert session.last_visit == 12 * HOUR
    memory.visit([0, 0, 9], 13 * HOUR)
    memory.visit([0], 11 * HOUR)  # told late
    assert (session.visits, session.interactions, session.accesses) == (3, 3, 3)
    assert session.last_visit == 13 * HOUR
    expected = heat(3, 3, 24.0, alpha=2.0, beta=3.0, gamma=5.0, recency_hours=12.0)
    assert memory.heat_of(session, 37 * HOUR) == expected
    assert memory.hottest(37 * HOUR) == (session, expected)


def test_analysed_pages_are_fresh_no_more_and_their_sessions_cool_down() -> None:
    memory = filled([Topic(0, [1, 2, 3], []), Topic(1, [4, 5], [])])
    memory.visit([0, 1], HOUR)
    memory.analysed([1, 2, 99], 2 * HOUR)
    session, other = memory.sessions
    assert (session.visits, session.interactions, session.accesses, session.last_visit) == (0, 0, 1, 2 * HOUR)
    assert session.fresh.tolist() == [3]
    assert (other.visits, other.interactions, other.fresh.tolist()) == (1, 2, [4, 5])
    memory.analysed([1], 9 * HOUR)  # a second time
    assert session.last_visit == 2 * HOUR


def test_a_session_without_fresh_pages_is_not_the_hottest() -> None:
    memory = filled([Topic(0, [1, 2, 3], []), Topic(1, [4], [])])
    memory.analysed([1, 2, 3], HOUR)
    memory.visit([0] * 50, HOUR)
    found = memory.hottest(HOUR)
    assert found is not None
    assert found[0].session_id == 1
    memory.analysed([4], HOUR)
    assert memory.hottest(HOUR) is None


def test_a_clock_set_back_reckons_everything_again() -> None:
    memory = empty(heat_gamma=10.0)
    memory.apply(Topic(0, [1, 2], []), 0.0)
    memory.apply(Topic(1, [3], []), 100 * HOUR)
    assert hottest_id(memory, 1000 * HOUR) == 0
    assert hottest_id(memory, 100 * HOUR) == 1


# losing


def test_the_least_retrieved_goes_then_the_one_visited_longest_ago() -> None:
    memory = filled([Topic(session_id, [session_id], ["tea"]) for session_id in range(5)], capacity=2)
    memory.evict()  # all are new: the oldest go
    assert [session.session_id for session in memory.sessions] == [3, 4]
    memory = filled([Topic(session_id, [session_id], []) for session_id in range(5)])
    memory = MidTerm.from_plain(memory.as_plain(), config.MidTerm(capacity=2))
    memory.visit([1, 1, 0, 3], HOUR)
    memory.visit([0], 2 * HOUR)
    memory.visit([4], 3 * HOUR)
    assert [session.session_id for session in memory.evict()] == [2, 3, 4]
    assert [session.session_id for session in memory.sessions] == [0, 1]
    assert [memory.session_of(seq) for seq in range(5)] == [0, 1, None, None, None]


def test_a_new_session_finds_room_where_all_others_were_retrieved() -> None:
    memory = filled([Topic(0, [0], []), Topic(1, [1], [])], capacity=2)
    assert memory.evict() == []
    memory.visit([0, 1, 1], HOUR)
    memory.apply(Topic(2, [2], []), HOUR)
    assert [session.session_id for session in memory.evict()] == [0]
    memory.apply(Topic(3, [3], []), HOUR)
    assert [session.session_id for session in memory.evict()] == [2]


@law
@given(
    st.integers(0, 7),
    st.integers(0, 4),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 5)), max_size=25),
)
def test_the_least_retrieved_go_and_nothing_of_them_stays(
    old: int, new: int, capacity: int, visits: list[tuple[int, int]]
) -> None:
    settled = filled([Topic(number, [2 * number, 2 * number + 1], ["tea"]) for number in range(old)])
    memory = MidTerm.from_plain(settled.as_plain(), config.MidTerm(capacity=capacity))
    for number in range(old, old + new):
        memory.apply(Topic(number, [2 * number, 2 * number + 1], ["tea"]), 2 * HOUR)
    for session_id, hour in visits:
        memory.visit([session_id], hour * HOUR)
    accesses = Counter(session_id for session_id, _ in visits)
    latest = {number: max([2 * (number >= old), *(h for n, h in visits if n == number)]) for number in range(old + new)}
    order = sorted(range(old + new), key=lambda number: (number >= old, accesses[number], latest[number], number))
    gone, left = order[: max(0, old + new - capacity)], set(order[max(0, old + new - capacity) :])
    assert [session.session_id for session in memory.evict()] == gone
    assert {session.session_id for session in memory.sessions} == left
    assert all(memory.get(number) is None for number in gone)
    owners = [memory.session_of(seq) for seq in range(2 * (old + new))]
    assert owners == [number if number in left else None for number in range(old + new) for _ in range(2)]
    hottest = hottest_id(memory, 9 * HOUR)
    assert hottest in left if left else hottest is None
    assert memory.evict() == []


@pytest.mark.parametrize("drop", [lambda memory: memory.drop(0), lambda memory: memory.evict()[0]])
def test_a_dropped_session_does_not_come_back(drop: Callable[[MidTerm], Session]) -> None:
    first, second = Topic(0, [1, 2], ["tea"]), Topic(1, [3], ["cup"])
    memory = filled([first, second], capacity=1)
    dropped = drop(memory)
    assert (dropped.session_id, dropped.seqs.tolist()) == (0, [1, 2])
    assert place(memory, ["tea"], {0: 0.1, 1: 0.2}) is None
    memory = MidTerm.from_plain(decode(encode(memory.as_plain())), config.MidTerm())
    before = everything(memory)
    for again in (first, second, Topic(0, [9], [])):
        memory.apply(again, HOUR)
    assert everything(memory) == before
    assert [memory.session_of(seq) for seq in (1, 2, 3, 9)] == [None, None, 1, None]
    assert place(memory, ["tea"], {0: 0.1, 1: 0.2}) is None
    assert memory.reserve_id() == 2
    assert (memory.drop(0), memory.drop(7)) == (None, None)


def test_the_id_of_the_newest_session_is_not_used_again_either() -> None:
    memory = filled([Topic(0, [1], []), Topic(1, [2], [])])
    memory.drop(1)
    assert MidTerm.from_plain(memory.as_plain(), config.MidTerm()).reserve_id() == 2


def test_a_page_taken_out_leaves_its_session_and_cools_it() -> None:
    memory = filled([Topic(0, [1, 2, 3], []), Topic(1, [4, 5], [])])
    session = memory.remove_page(2)
    assert session is memory.get(0)
    assert (session.seqs.tolist(), session.fresh.tolist(), session.interactions) == ([1, 3], [1, 3], 2)  # type: ignore[union-attr]
    assert (memory.remove_page(2), memory.session_of(2), memory.session_of(3)) == (None, None, 0)
    memory.analysed([4], HOUR)
    memory.remove_page(4)
    assert memory.sessions[1].interactions == 0
    for seq in (1, 3):
        memory.remove_page(seq)
    assert hottest_id(memory, HOUR) == 1
    assert memory.sessions[0].seqs.tolist() == []


def test_ids_of_sessions_that_are_gone_get_no_row() -> None:
    memory = filled([Topic(0, [1], []), Topic(1, [2], [])])
    memory.drop(0)
    memory.set_rows({0: 5, 1: 6})
    assert [session.row for session in memory.sessions] == [6]


WARM = 2.0
Act = Callable[[MidTerm, int, list[int], float], object]
ACTS: dict[str, Act] = {
    "apply": lambda memory, session_id, seqs, now: memory.apply(Topic(session_id, seqs, ["tea"] * (seqs > [9])), now),
    "visit": lambda memory, session_id, seqs, now: memory.visit([session_id], now),
    "analysed": lambda memory, session_id, seqs, now: memory.analysed(seqs, now),
    "drop": lambda memory, session_id, seqs, now: memory.drop(session_id),
    "remove": lambda memory, session_id, seqs, now: [memory.remove_page(seq) for seq in seqs],
    "settle": lambda memory, session_id, seqs, now: memory.settle(now),
    "set": lambda memory, session_id, seqs, now: memory.set_visits(session_id, len(seqs), now / 2, len(seqs)),
}
histories = st.lists(
    st.tuples(
        st.sampled_from([*ACTS, "snapshot", "evict"]), st.integers(0, 9), st.lists(st.integers(0, 30), max_size=5)
    ),
    max_size=40,
)


@law
@given(histories)
def test_everything_agrees_after_any_history(history: list[tuple[str, int, list[int]]]) -> None:
    settings = config.MidTerm(capacity=4)
    memory, known, gone = MidTerm(settings), set[int](), set[int]()
    for hour, (action, session_id, seqs) in enumerate(history):
        if action == "snapshot":
            memory = MidTerm.from_plain(decode(encode(memory.as_plain())), settings)
        elif action == "evict":
            least = least_retrieved(memory, settings.capacity)
            assert memory.evict() == least
        else:
            ACTS[action](memory, session_id, seqs, hour * HOUR)
        ready = [(-memory.heat_of(s, hour * HOUR), s.session_id) for s in memory.sessions if s.fresh]
        assert hottest_id(memory, hour * HOUR) == (min(ready)[1] if ready else None)
        hot = [(-heat, session.session_id) for session, heat in memory.hot(hour * HOUR, WARM)]
        assert hot == sorted(entry for entry in ready if -entry[0] >= WARM)
        present = {session.session_id for session in memory.sessions}
        gone |= known - present
        known = present
        assert not gone & present
        assert action != "evict" or len(memory) <= 4
    placed = [(seq, session.session_id) for session in memory.sessions for seq in session.seqs]
    assert [(seq, memory.session_of(seq)) for seq, _ in placed] == placed
    assert sum(memory.session_of(seq) is not None for seq in range(31)) == len(placed)
    for session in memory.sessions:
        assert session.seqs.tolist() == sorted(set(session.seqs))
        assert session.fresh.tolist() == [seq for seq in session.seqs if seq in session.fresh]
        assert 0 <= session.interactions <= len(session.fresh)
        assert 0 <= session.visits <= session.accesses


@law
@given(st.lists(st.tuples(st.sampled_from(["visit", "set", "analysed"]), st.integers(0, 40), st.integers(0, 9))))
def test_those_go_that_a_look_at_all_would_find_however_their_ranks_rose_and_fell(
    history: list[tuple[str, int, int]],
) -> None:
    """A session is founded at every step; a rank falls where the clock was set back, or counts are restored."""
    memory = MidTerm(config.MidTerm(capacity=6))
    for number, (action, which, hour) in enumerate([("visit", 0, 0)] * 8 + history):
        memory.apply(Topic(number, [number], []), hour * HOUR)
        session_id = memory.sessions[which % len(memory.sessions)].session_id
        ACTS[action](memory, session_id, [*session_of_id(memory, session_id).seqs], hour * HOUR)
        if action != "set":
            least = least_retrieved(memory, 6)
            assert memory.evict() == least


def test_ranks_that_were_noted_again_and_again_do_not_pile_up() -> None:
    memory = filled([Topic(number, [number], []) for number in range(4)], capacity=3)
    for number in range(4, 200):
        memory.evict()
        for session_id in (1, 2):
            memory.set_visits(session_id, 9, float(number), 9)
        memory.apply(Topic(number, [number], []), HOUR)
    assert {session.session_id for session in memory.sessions} > {1, 2}
    assert memory._rarity is not None
    assert len(memory._rarity) < 20


def test_nor_do_they_where_no_session_has_to_go() -> None:
    memory = filled([Topic(number, [number], []) for number in range(4)], capacity=3)
    memory.evict()
    for number in range(4, 2004):
        memory.apply(Topic(3, [number], []), HOUR)
        memory.analysed([number], HOUR)
        assert memory.evict() == []
        assert memory._rarity is None or len(memory._rarity) < 20
    assert [session.session_id for session in memory.sessions] == [1, 2, 3]
    memory.visit([1], HOUR)
    memory.apply(Topic(4, [2004], []), HOUR)
    assert [session.session_id for session in memory.evict()] == [2]


def session_of_id(memory: MidTerm, session_id: int) -> Session:
    session = memory.get(session_id)
    assert session is not None
    return session


def least_retrieved(memory: MidTerm, capacity: int) -> list[Session]:
    """Return the sessions that have to go, by looking at all of them."""
    new_from = memory._settled_ids
    ranked = sorted(memory.sessions, key=lambda s: (s.session_id >= new_from, s.accesses, s.last_visit, s.session_id))
    return ranked[: max(0, len(ranked) - capacity)]


def session_of(memory: MidTerm, seq: int) -> Session:
    session_id = memory.session_of(seq)
    session = None if session_id is None else memory.get(session_id)
    assert session is not None
    return session


def hottest_id(memory: MidTerm, now: float) -> int | None:
    found = memory.hottest(now)
    if found is None:
        return None
    session, its_heat = found
    assert its_heat == memory.heat_of(session, now)
    return session.session_id
