from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.ranking import Ranked, join
from tests.memory import law

# Scores in sixteenths add up without rounding, so that equal ones are equal; document numbers on both sides of what
# two digits of the radix sort hold.
docs = st.integers(0, 30) | st.integers(0, 1 << 20) | st.integers((1 << 40) - 3, (1 << 40) + 3)
cosines = st.dictionaries(docs, st.integers(-16, 16).map(lambda n: n / 16), max_size=60)
bm25 = st.dictionaries(docs, st.integers(0, 8).map(lambda n: n / 2), max_size=60)
weights = st.sampled_from([0.0, 0.5, 1.0])


def naive(dense: dict[int, float], words: dict[int, float], wd: float, ww: float, k: int) -> list[Ranked]:
    if not dense:
        wd, ww = 0.0, 1.0
    best = max(words.values(), default=0.0) or 1.0
    ranked = [
        Ranked(doc, wd * dense.get(doc, 0.0) + ww * words.get(doc, 0.0) / best, dense.get(doc), words.get(doc, 0.0))
        for doc in dense.keys() | words.keys()
    ]
    return sorted(ranked, key=lambda r: (-r.score, -r.doc))[: max(k, 0)]


def joined(dense: dict[int, float], words: dict[int, float], wd: float, ww: float, k: int) -> list[Ranked]:
    return join(
        np.array(list(dense), np.int64),
        np.array(list(dense.values()), np.float32),
        np.array(list(words), np.int64),
        np.array(list(words.values()), np.float32),
        dense_weight=wd,
        words_weight=ww,
        k=k,
    )


@law
@given(cosines, bm25, weights, weights, st.integers(-1, 70))
def test_the_ranking_is_that_of_the_formula(
    dense: dict[int, float], words: dict[int, float], wd: float, ww: float, k: int
) -> None:
    # The BM25 maximum is a power of two, so that dividing by it does not round.
    if any(words.values()):
        words = {**words, 500: 4.0}
    assert joined(dense, words, wd, ww, k) == naive(dense, words, wd, ww, k)


@law
@given(cosines, bm25, st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(
    dense: dict[int, float], words: dict[int, float], mix: Random
) -> None:
    def mixed(entries: dict[int, float]) -> dict[int, float]:
        return dict(mix.sample(list(entries.items()), len(entries)))

    assert joined(mixed(dense), mixed(words), 0.5, 0.5, 7) == joined(dense, words, 0.5, 0.5, 7)


@pytest.mark.parametrize("distinct", [3, 5000])
def test_of_many_the_best_are_chosen(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    numbers = rng.permutation(6000)
    dense = dict(zip(numbers[:4000].tolist(), (rng.integers(0, distinct, 4000) / 8192).tolist(), strict=True))
    words = dict(zip(numbers[2000:].tolist(), (rng.integers(0, distinct, 4000) / 1024).tolist(), strict=True))
    words[6000] = 8.0
    for k in (1, 7, 300, 6001, 9000):
        assert joined(dense, words, 0.5, 0.5, k) == naive(dense, words, 0.5, 0.5, k)


def test_a_page_without_a_vector_counts_nothing_on_that_side() -> None:
    found = join([2, 1], [0.5, -0.5], [3, 2], [4.0, 2.0], dense_weight=0.5, words_weight=0.5, k=5)
    assert found == [Ranked(3, 0.5, None, 4.0), Ranked(2, 0.5, 0.5, 2.0), Ranked(1, -0.25, -0.5, 0.0)]


def test_without_vectors_words_alone_decide_even_at_weight_zero() -> None:
    found = join([], [], [1, 2], [1.0, 4.0], dense_weight=1.0, words_weight=0.0, k=5)
    assert found == [Ranked(2, 1.0, None, 4.0), Ranked(1, 0.25, None, 1.0)]


def test_of_equal_scores_the_newer_page_comes_first() -> None:
    found = join(list(range(900)), [0.25] * 900, [], [], dense_weight=1.0, words_weight=1.0, k=3)
    assert [entry.doc for entry in found] == [899, 898, 897]


def test_nothing_found_is_an_empty_list() -> None:
    assert join([], [], [], [], dense_weight=0.5, words_weight=0.5, k=7) == []
    assert join([1], [0.5], [], [], dense_weight=0.5, words_weight=0.5, k=0) == []
