from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.memory import bm25, postings
from mos_pipeline.memory.bm25 import Shape
from mos_pipeline.memory.word_index import WordIndex
from tests.memory import law

Document = dict[int, int]
Scores = dict[int, tuple[float, float, float]]


class Entry(NamedTuple):
    """A page: its words, and whether a sitting begins with it."""

    words: Document
    begins: bool


# Few terms, so that they meet; some share the lower or the upper half of their bits.
hashes = st.sampled_from([0, 1, 7, 65535, 65536, 65543, 1 << 31, (1 << 32) - 1])
entries = st.lists(
    st.builds(Entry, st.dictionaries(hashes, st.integers(1, 255), max_size=6), st.integers(0, 3).map(lambda n: n == 0)),
    max_size=40,
)
queries = st.lists(hashes | st.just(99), max_size=6)
limits = st.tuples(st.integers(1, 24), st.integers(1, 24))  # of the tail and of a run
shapes = st.builds(Shape, st.floats(0.01, 3), st.floats(0, 1), st.sampled_from([0.0, 3.0, 40.0, 300.0, 5000.0]))
SHAPE = Shape(1.2, 0.75, 40.0)


@pytest.fixture(autouse=True, scope="module")
def _small_runs() -> Any:
    """Let a few pages be enough for runs to be sorted, merged and full, and for tables to be cut."""
    kept = postings.TAIL, postings.MAX_RUN, bm25.CELLS
    bm25.CELLS = 60
    yield
    postings.TAIL, postings.MAX_RUN, bm25.CELLS = kept


def columns(document: Document) -> tuple[Any, Any]:
    terms = sorted(document)
    return np.array(terms, np.uint32), np.array([document[term] for term in terms], np.uint8)


def sittings_of(pages: list[Entry]) -> list[int]:
    return [int(number) for number in np.cumsum([page.begins for page in pages], dtype=np.int64)]


def built(pages: list[Entry], numbers: list[int]) -> WordIndex:
    index = WordIndex()
    for number, page, sitting in zip(numbers, pages, sittings_of(pages), strict=True):
        index.add(number, *columns(page.words), sitting)
    return index


def add_rest(index: WordIndex, pages: list[Entry], numbers: list[int], first: int) -> None:
    parts = [columns(page.words) for page in pages[first:]]
    index.add_many(
        numbers[first:],
        [len(terms) for terms, _ in parts],
        np.concatenate([np.empty(0, np.uint32), *(terms for terms, _ in parts)]),
        np.concatenate([np.empty(0, np.uint8), *(counts for _, counts in parts)]),
        sittings_of(pages)[first:],
    )


def plain(pages: list[Entry], sittings: list[int], query: set[int], shape: Shape) -> Scores:
    """Score as the formula is printed, document by document; those without any score are left out."""
    words = [{term: float(count) for term, count in page.words.items()} for page in pages]
    windows = [lent_to(at, words, sittings, shape.window_words) for at in range(len(pages))]
    talks = [added(words[at] for at in range(len(pages)) if sittings[at] == sitting) for sitting in sorted({*sittings})]
    holding = {term: sum(term in page for page in words) for term in query}
    by_page = scored(words, query, holding, len(pages), shape)
    by_window = scored(windows, query, holding, len(pages), shape)
    talk_scores = scored(talks, query, holding, len(pages), shape, of_sittings=True)
    by_talk = dict(zip(sorted({*sittings}), talk_scores, strict=True))
    found = {at: (by_page[at], by_window[at], by_talk[sittings[at]]) for at in range(len(pages))}
    return {at: scores for at, scores in found.items() if any(scores)}


def added(documents: Any) -> dict[int, float]:
    total: dict[int, float] = {}
    for document in documents:
        for term, count in document.items():
            total[term] = total.get(term, 0.0) + count
    return total


def lent_to(at: int, words: list[dict[int, float]], sittings: list[int], limit: float) -> dict[int, float]:
    parts = [words[at]]
    for distance in (-2, -1, 1, 2):
        other = at + distance
        if 0 <= other < len(words) and sittings[other] == sittings[at]:
            length = max(sum(words[other].values()), 1.0)
            rest = limit if abs(distance) == 1 else limit - length
            share = max(0.0, min(1.0, rest / length))
            parts.append({term: share * count for term, count in words[other].items() if share})
    return added(parts)


def scored(
    documents: list[dict[int, float]],
    query: set[int],
    holding: dict[int, int],
    pages: int,
    shape: Shape,
    *,
    of_sittings: bool = False,
) -> list[float]:
    lengths = [sum(document.values()) for document in documents]
    counted = [length for length in lengths if length or not of_sittings]
    average = sum(counted) / max(len(counted), 1)
    scores = []
    for document, length in zip(documents, lengths, strict=True):
        score = 0.0
        for term in query & document.keys():
            idf = math.log(1 + (pages - holding[term] + 0.5) / (holding[term] + 0.5))
            discount = 1 - shape.b + shape.b * length / average
            score += idf * document[term] / (document[term] + shape.k1 * discount)
        scores.append(score)
    return scores


def answer(index: WordIndex, query: list[int], shape: Shape = SHAPE) -> Scores:
    found = index.search(np.array(query, np.uint32), shape)
    assert [column.dtype for column in found[:4]] == [np.int64, np.float32, np.float32, np.float32]
    assert [len(column) for column in found[:4]] == [len(index)] * 4
    assert found.docs.tolist() == sorted(set(found.docs.tolist()))
    assert all(column.max(initial=0.0) <= found.limit * (1.0 + 1e-6) for column in found[1:4])
    rows = zip(*(column.tolist() for column in found[:4]), strict=True)
    return {doc: scores for doc, *scores in rows if any(scores)}  # type: ignore[misc]


def approx(scores: Scores) -> dict[int, Any]:
    return {doc: pytest.approx(list(parts), rel=1e-4, abs=1e-6) for doc, parts in scores.items()}


@law
@given(entries, queries, shapes, limits)
def test_scores_are_those_of_the_formula(
    pages: list[Entry], query: list[int], shape: Shape, sizes: tuple[int, int]
) -> None:
    postings.TAIL, postings.MAX_RUN = sizes
    index = built(pages, list(range(len(pages))))
    assert len(index) == len(pages)
    assert answer(index, query, shape) == approx(plain(pages, sittings_of(pages), set(query), shape))


@law
@given(entries, queries, limits, limits, st.integers(0, 40), st.integers(0, 40))
def test_neither_runs_nor_adding_many_nor_asking_in_between_change_a_bit(
    pages: list[Entry], query: list[int], sizes: tuple[int, int], other_sizes: tuple[int, int], cut: int, asked: int
) -> None:
    postings.TAIL, postings.MAX_RUN = sizes
    numbers = [3 * position + 5 for position in range(len(pages))]
    one = built(pages, numbers)
    postings.TAIL, postings.MAX_RUN = other_sizes
    other = built(pages[: min(asked, cut)], numbers[: min(asked, cut)])
    answer(other, query)
    for number, page, sitting in zip(numbers[:cut], pages, sittings_of(pages), strict=False):
        if len(other) * 3 + 5 <= number:
            other.add(number, *columns(page.words), sitting)
    add_rest(other, pages, numbers, cut)
    assert answer(one, query) == answer(other, query)
    assert (len(one), one.last_sitting) == (len(other), other.last_sitting)
    other.add(1000, *columns({1: 2}), 1000)
    one.add(1000, *columns({1: 2}), 1000)
    assert answer(one, [*query, 1]) == answer(other, [*query, 1])


@law
@given(entries, queries, limits, st.lists(st.sets(st.integers(-2, 45), max_size=12), max_size=4), st.integers(0, 40))
def test_removed_documents_count_nowhere(
    pages: list[Entry], query: list[int], sizes: tuple[int, int], removed: list[set[int]], first: int
) -> None:
    """The index is as if they had never been added, whether their postings are purged already or not."""
    postings.TAIL, postings.MAX_RUN = sizes
    index = built(pages[:first], list(range(min(first, len(pages)))))
    gone = set[int]()
    for docs in removed:
        index.remove(list(docs))
        gone |= {doc for doc in docs if 0 <= doc < min(first, len(pages))}
        left = [at for at in range(min(first, len(pages))) if at not in gone]
        assert len(index) == len(left)
        scores = plain([pages[at] for at in left], [sittings_of(pages)[at] for at in left], set(query), SHAPE)
        assert answer(index, query) == approx({left[at]: parts for at, parts in scores.items()})
    add_rest(index, pages, list(range(len(pages))), first)
    left = [at for at in range(len(pages)) if at not in gone]
    scores = plain([pages[at] for at in left], [sittings_of(pages)[at] for at in left], set(query), SHAPE)
    assert answer(index, query) == approx({left[at]: parts for at, parts in scores.items()})


def test_postings_of_removed_documents_are_purged_when_a_quarter_is_removed() -> None:
    index = built([Entry({1: 1, 2: 1}, False)] * 100, list(range(100)))
    index.remove(range(20))
    assert (len(index), len(index._postings)) == (80, 200)
    index.remove(range(15, 25))
    assert (len(index), len(index._postings)) == (75, 150)
    index.remove([*range(100), 1000])
    assert (len(index), len(index._postings)) == (0, 0)
    index.add(100, *columns({1: 1}))
    assert list(answer(index, [1])) == [100]


@law
@given(entries, st.integers(1, 24))
def test_every_posting_is_kept_once_in_few_runs(pages: list[Entry], tail: int) -> None:
    postings.TAIL, postings.MAX_RUN = tail, 1 << 18
    index = built(pages, list(range(len(pages))))
    *runs, rest = index._postings.parts()
    sizes = [len(run.hashes) for run in runs]
    assert sum(sizes) + len(rest.hashes) == len(index._postings) == sum(len(page.words) for page in pages)
    assert all(2 * newer < older for older, newer in pairwise(sizes))
    for run in runs:
        assert sorted(zip(run.hashes.tolist(), run.docs.tolist(), strict=True)) == list(
            zip(run.hashes.tolist(), run.docs.tolist(), strict=True)
        )


def test_an_empty_index_and_an_empty_query_find_nothing() -> None:
    assert answer(WordIndex(), [1]) == {}
    index = built([Entry({1: 1}, False), Entry({}, True)], [4, 9])
    assert answer(index, []) == {}
    assert answer(index, [2]) == {}
    assert list(answer(index, [1])) == [4]


def test_a_term_that_all_pages_hold_still_counts() -> None:
    pages = [Entry({1: 1}, False)] * 50
    assert all(min(scores) > 0 for scores in answer(built(pages, list(range(50))), [1]).values())


def test_counts_that_saturate_at_once_divide_nothing_by_nothing() -> None:
    index = built([Entry({1: 1}, False), Entry({2: 3}, False), Entry({}, True)], [0, 1, 2])
    assert list(answer(index, [1], Shape(0.0, 0.0, 40.0))) == [0, 1]
    assert list(answer(index, [1], Shape(1.0, 1.0, 40.0))) == [0, 1]


def test_a_long_neighbour_lends_little() -> None:
    short = built([Entry({1: 1}, False), Entry({2: 2}, False)], [0, 1])
    long = built([Entry({1: 1}, False), Entry({2: 2, 7: 200}, False)], [0, 1])
    assert answer(short, [2])[0][1] > 1.5 * answer(long, [2])[0][1] > 0


def test_a_view_is_not_changed_by_what_comes_later() -> None:
    index = built([Entry({1: 1}, False), Entry({2: 1}, False)], [0, 1])
    view, query = index.view(SHAPE), np.array([1], np.uint32)
    before = [column.tolist() for column in view.search(query)[:4]]
    index.add(2, *columns({1: 3}))
    index.search(query, SHAPE)
    index.remove([0])
    assert [column.tolist() for column in view.search(query)[:4]] == before


@pytest.mark.parametrize("number", [7, 3])
def test_pages_out_of_order_are_refused(number: int) -> None:
    index = built([Entry({1: 1}, False)], [7])
    with pytest.raises(InputError, match="in the order"):
        index.add(number, *columns({2: 1}))
    with pytest.raises(InputError, match="ascend from 7"):
        index.add_many([9, number], [0, 0], *columns({}))
    assert (len(index), answer(index, [2])) == (1, {})


def test_sittings_do_not_descend() -> None:
    index = built([Entry({1: 1}, True)], [7])
    with pytest.raises(InputError, match="sitting 0 comes after 1"):
        index.add(8, *columns({2: 1}), 0)
    for sittings in ([0, 1], [2, 1]):
        with pytest.raises(InputError, match="sittings descend from 1"):
            index.add_many([8, 9], [0, 0], *columns({}), sittings)
    assert (len(index), index.last_sitting) == (1, 1)


@pytest.mark.parametrize(
    ("numbers", "sizes", "sittings"),
    [([1], [1, 1], [0]), ([1, 2], [1, 2], [0, 0]), ([1, 2], [3, -1], [0, 0]), ([1, 2], [1, 1], [0])],
)
def test_columns_that_do_not_fit_are_refused(numbers: list[int], sizes: list[int], sittings: list[int]) -> None:
    index = WordIndex()
    with pytest.raises(InputError, match="don't fit"):
        index.add_many(numbers, sizes, *columns({1: 1, 2: 1}), sittings)
    with pytest.raises(InputError, match="1 terms with 2 counts"):
        index.add(1, np.zeros(1, np.uint32), np.ones(2, np.uint8))
    assert len(index) == 0
