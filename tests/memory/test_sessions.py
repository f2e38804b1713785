from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.sessions import MidTerm
from tests.memory import law


class Topic(NamedTuple):
    session_id: int
    seqs: list[int]
    keywords: list[str]
    summary: str = "a summary"
    timestamp: str = "2024-05-01 10:00:00"
    row: int = 3


words = st.lists(st.sampled_from(["tea", "Tea", "cup", "pot", "milk"]), max_size=4)
topics = st.lists(st.builds(Topic, st.integers(0, 5), st.lists(st.integers(0, 40), max_size=8), words), max_size=12)


def filled(placements: list[Topic], threshold: float = 0.6) -> MidTerm:
    memory = MidTerm(threshold)
    for placement in placements:
        memory.apply(placement)
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


def everything(memory: MidTerm) -> list[object]:
    return [(s.session_id, s.summary, s.timestamp, s.keywords, s.seqs.tolist()) for s in memory.sessions]


@law
@given(topics)
def test_applying_a_placement_again_changes_nothing(placements: list[Topic]) -> None:
    memory = filled(placements)
    once = everything(memory)
    for placement in placements:
        memory.apply(placement)
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
    assert place(MidTerm(0.0), ["tea"], {}) is None


def test_a_session_that_is_only_reserved_can_be_joined_by_its_vector() -> None:
    memory = MidTerm(0.6)
    reserved = memory.reserve_id()
    assert place(memory, ["tea"], {reserved: 0.75}) == reserved


def test_ids_are_never_given_out_twice() -> None:
    memory = filled([Topic(4, [1], [])])
    assert [memory.reserve_id(), memory.reserve_id()] == [5, 6]
    memory.apply(Topic(5, [2], []))
    assert memory.reserve_id() == 7
    assert memory.get(6) is None
