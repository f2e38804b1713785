"""Shared keywords, told for all sessions at once, whatever their ids are."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.keywords import KeywordIndex
from tests.memory import law

WORDS = st.sets(st.sampled_from("abcdefgh"), max_size=6)
IDS = st.integers(0, 12) | st.integers(0, 1 << 40)


@law
@given(st.dictionaries(IDS, WORDS, max_size=12), WORDS, st.sets(IDS, max_size=4), st.randoms())
def test_it_is_the_share_of_common_words(sessions: dict[int, set[str]], words: set[str], others: set[int], rng) -> None:  # type: ignore[no-untyped-def]
    index = KeywordIndex()
    for session_id, theirs in sessions.items():
        index.add(session_id, sorted(theirs))
    ids = [*sessions, *(others - sessions.keys())]
    ids = rng.sample(ids, rng.randint(0, len(ids)))
    theirs_of = [sessions.get(session_id, set()) for session_id in ids]
    expected = [len(words & theirs) / max(1, len(words | theirs)) for theirs in theirs_of]
    # Ids are sparse: a table up to the highest of them could not be had.
    assert index.jaccard(sorted(words), np.array(ids, np.int64)).tolist() == expected


def test_what_it_costs_follows_the_sessions_and_not_how_many_there_ever_were() -> None:
    index, ids = KeywordIndex(), np.arange(500, dtype=np.int64)
    ids[250:] += 10_000_000
    for session_id in ids.tolist():
        index.add(session_id, [f"{session_id}", "tea", "cup"])
    tracemalloc.start()
    try:
        assert index.jaccard(["tea", "milk"], ids).tolist() == [0.25] * 500
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20
