from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.memory import word_index
from mos_pipeline.memory.word_index import WordIndex
from tests.memory import law

Document = dict[int, int]

# Few terms, so that they meet; some share the lower or the upper half of their bits.
hashes = st.sampled_from([0, 1, 7, 65535, 65536, 65543, 1 << 31, (1 << 32) - 1])
documents = st.lists(st.dictionaries(hashes, st.integers(1, 255), max_size=6), max_size=40)
queries = st.lists(hashes | st.just(99), max_size=6)
limits = st.tuples(st.integers(1, 24), st.integers(1, 24))  # of the tail and of a run


@pytest.fixture(autouse=True, scope="module")
def _small_runs() -> Any:
    """Let a few pages be enough for runs to be sorted, merged and full."""
    kept = word_index.TAIL, word_index.MAX_RUN
    yield
    word_index.TAIL, word_index.MAX_RUN = kept


def columns(document: Document) -> tuple[Any, Any]:
    terms = sorted(document)
    return np.array(terms, np.uint32), np.array([document[term] for term in terms], np.uint8)


def built(pages: list[Document], numbers: list[int]) -> WordIndex:
    index = WordIndex()
    for number, page in zip(numbers, pages, strict=True):
        index.add(number, *columns(page))
    return index


def bm25(pages: list[Document], query: set[int], k1: float, b: float) -> dict[int, float]:
    """Score as the formula is printed, page by page; those without a term of the query are left out."""
    scores = {}
    average = sum(sum(page.values()) for page in pages) / max(len(pages), 1)
    for position, page in enumerate(pages):
        score = 0.0
        for term in query & page.keys():
            holding = sum(term in other for other in pages)
            idf = math.log(1 + (len(pages) - holding + 0.5) / (holding + 0.5))
            discount = 1 - b + b * sum(page.values()) / average
            score += idf * page[term] * (k1 + 1) / (page[term] + k1 * discount)
        if query & page.keys():
            scores[position] = score
    return scores


def answer(index: WordIndex, query: list[int], k1: float = 1.2, b: float = 0.75) -> dict[int, float]:
    found, scores = index.search(np.array(query, np.uint32), k1=k1, b=b)
    assert (found.dtype, scores.dtype) == (np.dtype(np.int64), np.dtype(np.float32))
    assert found.tolist() == sorted(set(found.tolist()))
    return dict(zip(found.tolist(), scores.tolist(), strict=True))


@law
@given(documents, queries, st.floats(0, 3), st.floats(0, 1), limits)
def test_scores_are_those_of_the_formula(
    pages: list[Document], query: list[int], k1: float, b: float, sizes: tuple[int, int]
) -> None:
    word_index.TAIL, word_index.MAX_RUN = sizes
    index = built(pages, list(range(len(pages))))
    assert len(index) == len(pages)
    assert answer(index, query, k1, b) == pytest.approx(bm25(pages, set(query), k1, b), rel=1e-5, abs=0.0)


@law
@given(documents, queries, limits, limits, st.integers(0, 40))
def test_neither_runs_nor_adding_many_change_a_bit(
    pages: list[Document], query: list[int], sizes: tuple[int, int], other_sizes: tuple[int, int], cut: int
) -> None:
    word_index.TAIL, word_index.MAX_RUN = sizes
    numbers = [3 * position + 5 for position in range(len(pages))]
    one = built(pages, numbers)
    word_index.TAIL, word_index.MAX_RUN = other_sizes
    other = built(pages[:cut], numbers[:cut])
    parts = [columns(page) for page in pages[cut:]]
    other.add_many(
        numbers[cut:],
        [len(terms) for terms, _ in parts],
        np.concatenate([np.empty(0, np.uint32), *(terms for terms, _ in parts)]),
        np.concatenate([np.empty(0, np.uint8), *(counts for _, counts in parts)]),
    )
    assert answer(one, query) == answer(other, query)
    assert len(one) == len(other)
    other.add(1000, *columns({1: 2}))
    one.add(1000, *columns({1: 2}))
    assert answer(one, [*query, 1]) == answer(other, [*query, 1])


@law
@given(documents, st.integers(1, 24))
def test_every_posting_is_kept_once_in_few_runs(pages: list[Document], tail: int) -> None:
    word_index.TAIL, word_index.MAX_RUN = tail, 1 << 18
    index = built(pages, list(range(len(pages))))
    sizes = [len(run.hashes) for run in index._runs]
    assert sum(sizes) + len(index._tail_hashes) == sum(map(len, pages))
    assert all(2 * newer < older for older, newer in pairwise(sizes))
    for run in index._runs:
        assert sorted(zip(run.hashes.tolist(), run.docs.tolist(), strict=True)) == list(
            zip(run.hashes.tolist(), run.docs.tolist(), strict=True)
        )


def test_an_empty_index_and_an_empty_query_find_nothing() -> None:
    assert answer(WordIndex(), [1]) == {}
    index = built([{1: 1}, {}], [4, 9])
    assert answer(index, []) == {}
    assert answer(index, [2]) == {}
    assert list(answer(index, [1])) == [4]


def test_a_term_that_all_pages_hold_still_counts() -> None:
    assert all(score > 0 for score in answer(built([{1: 1}] * 50, list(range(50))), [1]).values())


def test_what_was_found_is_not_changed_by_later_pages() -> None:
    index = built([{1: 1}], [0])
    found, scores = index.search(np.array([1], np.uint32), k1=1.2, b=0.75)
    index.add(1, *columns({1: 3}))
    assert (found.tolist(), len(scores)) == ([0], 1)


@pytest.mark.parametrize("number", [7, 3])
def test_pages_out_of_order_are_refused(number: int) -> None:
    index = built([{1: 1}], [7])
    with pytest.raises(InputError, match="in the order"):
        index.add(number, *columns({2: 1}))
    with pytest.raises(InputError, match="ascend from 7"):
        index.add_many([9, number], [0, 0], *columns({}))
    assert (len(index), answer(index, [2])) == (1, {})


@pytest.mark.parametrize(("numbers", "sizes"), [([1], [1, 1]), ([1, 2], [1, 2]), ([1, 2], [3, -1])])
def test_columns_that_do_not_fit_are_refused(numbers: list[int], sizes: list[int]) -> None:
    index = WordIndex()
    with pytest.raises(InputError, match="don't fit"):
        index.add_many(numbers, sizes, *columns({1: 1, 2: 1}))
    with pytest.raises(InputError, match="1 terms with 2 counts"):
        index.add(1, np.zeros(1, np.uint32), np.ones(2, np.uint8))
    assert len(index) == 0
