from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.config import Config
from mos_pipeline.engine.flow import Batch
from mos_pipeline.engine.placing import decide
from mos_pipeline.memory.outcomes import BatchOutcome, Placed
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.runtime.vector_pool import VectorPool

NOW = 1.7e9
NORTH, EAST, NORTH_EAST = (1.0, 0.0), (0.0, 1.0), (0.7071, 0.7071)


@pytest.fixture
def pool() -> Iterator[VectorPool]:
    pool = VectorPool(2, 65536)
    yield pool
    pool.close()


@pytest.fixture
def state() -> MemoryState:
    return MemoryState("0" * 16, Config())


def batch(
    scope: Scope, pool: VectorPool, live: tuple[int, ...], *topics: tuple[tuple[float, float], str, list[int]]
) -> Batch:
    """A batch whose tasks are done: each topic is its summary's vector, a keyword and indices of its pages."""
    rows = pool.allocate(scope.session_rows, len(topics))
    pool.write(rows, np.array([vector for vector, _, _ in topics], np.float16).reshape(-1, 2))
    told = [
        {"theme": word, "keywords": [word], "content": f"about {word}", "pages": pages} for _, word, pages in topics
    ]
    answer = {"continues": [False] * len(live), "overviews": ["" for _ in live], "topics": told, "owed": []}
    times = tuple(f"2024-05-{seq:02}" for seq in live)
    return Batch(live, live=live, homeless=live, timestamps=times, answer=answer, summary_rows=rows.tolist())


def done(state: MemoryState, scope: Scope, work: Batch, pool: VectorPool) -> list[Placed]:
    outcome = decide(scope, work, NOW, pool)
    state.apply(scope, outcome)
    return outcome.placed


def test_topics_found_sessions_and_later_ones_join_the_nearest(state: MemoryState, pool: VectorPool) -> None:
    scope = state.scope("user", "assistant")
    work = batch(scope, pool, (4, 5, 6), (NORTH, "tea", [0, 2]), (EAST, "bicycle", [1]))
    placed = done(state, scope, work, pool)
    assert [(p.session_id, p.founded, p.summary, p.keywords, p.timestamp, p.seqs) for p in placed] == [
        (0, True, "about tea", ["tea"], "2024-05-04", [4, 6]),
        (1, True, "about bicycle", ["bicycle"], "2024-05-05", [5]),
    ]
    joining = done(state, scope, batch(scope, pool, (7,), (NORTH_EAST, "bicycle", [0])), pool)
    assert joining == [Placed(1, False, "", ["bicycle"], "", [7], -1)]
    assert [list(session.seqs) for session in scope.mid_term.sessions] == [[4, 6], [5, 7]]


def test_a_topic_can_join_what_the_one_before_it_has_founded(state: MemoryState, pool: VectorPool) -> None:
    scope = state.scope("user", "assistant")
    work = batch(scope, pool, (0, 1), (NORTH, "tea", [0]), (NORTH, "tea", [1]))
    first, second = done(state, scope, work, pool)
    assert (first.founded, second.founded) == (True, False)
    assert first.session_id == second.session_id
    (session,) = scope.mid_term.sessions
    assert list(session.seqs) == [0, 1]


def test_rows_of_founded_sessions_stay_and_the_others_are_given_back(state: MemoryState, pool: VectorPool) -> None:
    scope = state.scope("user", "assistant")
    for i in range(5):
        done(state, scope, batch(scope, pool, (i,), (NORTH if i % 2 else EAST, f"word{i % 2}", [0])), pool)
    assert pool.usage.used == len(scope.mid_term) == 2
    sessions, cosines = pool.scores(scope.session_rows, NORTH)
    assert dict(zip(sessions.tolist(), cosines.tolist(), strict=True)) == {0: 0.0, 1: 1.0}


def test_sessions_of_another_scope_are_not_joined(state: MemoryState, pool: VectorPool) -> None:
    for name in ("one", "two"):
        scope = state.scope(name, "assistant")
        (placed,) = done(state, scope, batch(scope, pool, (0,), (NORTH, "tea", [0])), pool)
        assert placed.founded


def test_a_batch_with_no_page_left_changes_nothing(state: MemoryState, pool: VectorPool) -> None:
    scope = state.scope("user", "assistant")
    assert decide(scope, Batch((1, 2)), NOW, pool) == BatchOutcome([], [], [], [], NOW)
    assert pool.usage.used == 0


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(-1, 50))
def test_links_and_overviews_follow_the_chains(continues: list[bool], before: int) -> None:
    live = tuple(range(100, 100 + len(continues)))
    answer: dict[str, Any] = {"continues": continues, "topics": [], "owed": []}
    answer["overviews"] = [f"up to {seq}" for seq in live]
    work = Batch(live, live=live, before=before, answer=answer)
    scope = MemoryState("0" * 16, Config()).scope("user", "assistant")
    pool = VectorPool(2, 65536)
    try:
        outcome = decide(scope, work, NOW, pool)
    finally:
        pool.close()
    assert outcome.seqs == list(live)
    chains: list[list[int]] = [[before]]
    for seq, goes_on in zip(live, continues, strict=True):
        if goes_on:
            chains[-1].append(seq)
        else:
            chains.append([seq])
    links = {later: earlier for chain in chains for earlier, later in pairwise(chain)}
    assert outcome.links == [links.get(seq, -1) for seq in live]
    assert outcome.overviews == [[chain[-1], f"up to {chain[-1]}"] for chain in chains if chain[-1] in live]
