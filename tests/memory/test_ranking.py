from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.ranking import Dense, Ranked, Weights, join, two_level
from mos_pipeline.memory.word_index import WordScores
from tests.memory import law

# Scores in sixteenths add up without rounding, so that equal ones are equal; document numbers on both sides of what
# two digits of the radix sort hold.
docs = st.integers(0, 30) | st.integers(0, 1 << 20) | st.integers((1 << 40) - 3, (1 << 40) + 3)
cosines = st.dictionaries(docs, st.integers(-16, 16).map(lambda n: n / 16), max_size=60)
bm25 = st.integers(0, 8).map(lambda n: n / 2)
matched = st.dictionaries(docs, st.tuples(bm25, bm25, bm25), max_size=60)
weights = st.builds(Weights, *[st.sampled_from([0.0, 0.5, 1.0])] * 4)
LIMIT = 4.0  # a power of two, so that dividing by it does not round
HALF = Weights(0.5, 0.5, 0.0, 0.0)
NOTHING = (0.0, 0.0, 0.0)


class Words(NamedTuple):
    """BM25 of pages, windows and sittings by document, as plain numbers."""

    scores: dict[int, tuple[float, float, float]]

    def columns(self) -> WordScores:
        numbers = sorted(self.scores)
        parts = np.array([self.scores[number] for number in numbers], np.float32).reshape(len(numbers), 3)
        return WordScores(np.array(numbers, np.int64), parts[:, 0], parts[:, 1], parts[:, 2], LIMIT)


def naive(
    dense: dict[int, float],
    words: dict[int, tuple[float, float, float]],
    given: Weights,
    k: int,
) -> list[Ranked]:
    if not dense:
        given = given._replace(dense=0.0) if any(given[1:]) else Weights(0.0, 1.0, 0.0, 0.0)
    found = [doc for doc in dense.keys() | words.keys() if doc in dense or any(words[doc])]
    ranked = [
        Ranked(
            doc,
            given.dense * dense.get(doc, 0.0)
            + sum(given[part + 1] * words.get(doc, NOTHING)[part] / LIMIT for part in range(3)),
            dense.get(doc),
            *words.get(doc, NOTHING),
        )
        for doc in found
    ]
    return sorted(ranked, key=lambda r: (-r.score, -r.doc))[: max(k, 0)]


def found_by_vector(dense: dict[int, float]) -> Dense:
    return Dense(np.array(list(dense), np.int64), np.array(list(dense.values()), np.float32))


def joined(
    dense: dict[int, float],
    words: dict[int, tuple[float, float, float]],
    given: Weights,
    k: int,
) -> list[Ranked]:
    return join(Words(words).columns(), found_by_vector(dense), given, k=k)


def changed(parts: tuple[float, float, float], which: int, value: float) -> tuple[float, float, float]:
    first, second, third = (value if place == which else part for place, part in enumerate(parts))
    return first, second, third


@law
@given(cosines, matched, weights, st.integers(-1, 70))
def test_the_ranking_is_that_of_the_formula(
    dense: dict[int, float], words: dict[int, tuple[float, float, float]], given: Weights, k: int
) -> None:
    assert joined(dense, words, given, k) == naive(dense, words, given, k)


@law
@given(matched, weights, st.integers(0, 60))
def test_the_latest_pages_may_have_no_vector(
    words: dict[int, tuple[float, float, float]], given: Weights, embedded: int
) -> None:
    dense = {doc: doc % 16 / 16 for doc in sorted(words)[:embedded]}
    assert joined(dense, words, given, 70) == naive(dense, words, given, 70)


@law
@given(cosines, matched, st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(
    dense: dict[int, float], words: dict[int, tuple[float, float, float]], mix: Random
) -> None:
    mixed = dict(mix.sample(list(dense.items()), len(dense)))
    assert joined(mixed, words, HALF, 7) == joined(dense, words, HALF, 7)


@law
@given(cosines.filter(len), matched, weights, st.integers(0, 3), st.data())
def test_a_weight_of_zero_switches_its_part_off(
    dense: dict[int, float],
    words: dict[int, tuple[float, float, float]],
    given: Weights,
    part: int,
    data: st.DataObject,
) -> None:
    given = given._replace(**{given._fields[part]: 0.0})
    scores = {entry.doc: entry.score for entry in joined(dense, words, given, 200)}
    if part == 0:
        dense = {doc: data.draw(st.integers(-16, 16)) / 16 for doc in dense}
    else:
        words = {
            doc: changed(parts, part - 1, parts[part - 1] and data.draw(bm25.filter(bool)))
            for doc, parts in words.items()
        }
    assert {entry.doc: entry.score for entry in joined(dense, words, given, 200)} == scores


@law
@given(cosines.filter(len), matched, weights, st.data())
def test_a_better_cosine_never_ranks_a_page_lower(
    dense: dict[int, float],
    words: dict[int, tuple[float, float, float]],
    given: Weights,
    data: st.DataObject,
) -> None:
    doc = data.draw(st.sampled_from(sorted(dense)))

    def rank(cosine: float) -> int:
        return [entry.doc for entry in joined({**dense, doc: cosine}, words, given, 200)].index(doc)

    assert rank(dense[doc] + 0.5) <= rank(dense[doc])


@pytest.mark.parametrize("distinct", [3, 5000])
def test_of_many_the_best_are_chosen(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    numbers = rng.permutation(6000)
    dense = dict(zip(numbers[:4000].tolist(), (rng.integers(0, distinct, 4000) / 8192).tolist(), strict=True))
    scores = (rng.integers(0, distinct, 4000) / 1024).tolist()
    words = {doc: (score, 0.0, 0.0) for doc, score in zip(numbers[2000:].tolist(), scores, strict=True)}
    words[6000] = (8.0, 0.0, 0.0)
    for k in (1, 7, 300, 6001, 9000):
        assert joined(dense, words, HALF, k) == naive(dense, words, HALF, k)


def test_a_page_without_a_vector_counts_nothing_on_that_side() -> None:
    found = joined({2: 0.5, 1: -0.5}, {1: NOTHING, 2: (2.0, 0.0, 0.0), 3: (4.0, 1.0, 0.0)}, HALF, 5)
    assert found == [
        Ranked(3, 0.5, None, 4.0, 1.0),
        Ranked(2, 0.5, 0.5, 2.0),
        Ranked(1, -0.25, -0.5),
    ]


def test_without_vectors_words_alone_decide_even_at_weight_zero() -> None:
    words = {1: (1.0, 8.0, 0.0), 2: (4.0, 2.0, 0.0), 3: NOTHING}
    only_dense = Weights(1.0, 0.0, 0.0, 0.0)
    assert [(entry.doc, entry.score) for entry in joined({}, words, only_dense, 5)] == [(2, 1.0), (1, 0.25)]
    windows = Weights(1.0, 0.0, 0.5, 0.0)
    assert [(entry.doc, entry.score) for entry in joined({}, words, windows, 5)] == [(1, 1.0), (2, 0.25)]


def test_of_equal_scores_the_newer_page_comes_first() -> None:
    found = joined(dict.fromkeys(range(900), 0.25), {}, HALF, 3)
    assert [entry.doc for entry in found] == [899, 898, 897]


def test_nothing_found_is_an_empty_list() -> None:
    assert joined({}, {}, HALF, 7) == []
    assert joined({}, {4: NOTHING}, HALF, 7) == []
    assert joined({1: 0.5}, {}, HALF, 0) == []


def test_two_levels_look_into_the_best_sessions_alone() -> None:
    sessions = [np.array([place, 10 + place], np.int64) for place in range(8)]
    relevance = [0.9, 0.8, 0.05, 0.7, 0.6, 0.3, 0.2, 0.1]
    dense = found_by_vector({doc: 0.1 + doc / 100 for doc in range(18)} | {13: 0.05})
    found = two_level(sessions, relevance, dense, k=30)
    assert {entry.doc for entry in found} == {0, 10, 1, 11, 3, 4, 14, 5, 15}  # 13 is too far from the query
    assert [entry.doc for entry in found[:2]] == [15, 14]
    assert found[0].score == found[0].dense == pytest.approx(0.25)


def test_two_levels_find_nothing_where_no_session_is_near() -> None:
    dense = found_by_vector({1: 0.9})
    assert two_level([], [], dense, k=3) == []
    assert two_level([np.array([1])], [0.09], dense, k=3) == []
    assert [entry.doc for entry in two_level([np.array([1])], [0.1], dense, k=3)] == [1]
