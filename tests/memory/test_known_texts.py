"""The table of known texts is bounded, and never names a row that was given back or holds another text's vector."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.known_texts import NO_DIGEST, KnownTexts, digest_of

DIGESTS = st.integers(1, 8)
ROWS = st.integers(0, 8)
STEPS = st.one_of(
    st.tuples(st.just("enter"), DIGESTS, ROWS),
    st.tuples(st.just("recall"), DIGESTS, ROWS),
    st.tuples(st.just("find"), DIGESTS, st.just(0)),
    st.tuples(st.just("gone"), st.just(0), ROWS),
)


@given(st.lists(STEPS, max_size=60), st.integers(0, 5))
def test_it_is_a_bounded_list_of_those_that_came_last(steps: list[tuple[str, int, int]], limit: int) -> None:
    table = KnownTexts(limit)
    model = list[tuple[int, int]]()  # digest and row, those that came last at the end
    for what, digest, row in steps:
        if what == "enter":
            table.enter(digest, row)
            model = [pair for pair in model if digest != pair[0] and row != pair[1]] + [(digest, row)]
            model = model[max(0, len(model) - limit) :]
        elif what == "recall":
            table.recall(digest, row)
            if len(model) < limit and all(digest != pair[0] and row != pair[1] for pair in model):
                model.insert(0, (digest, row))
        elif what == "gone":
            table.gone([row, 99])
            model = [pair for pair in model if row != pair[1]]
        else:
            before = dict(model).get(digest)
            assert table.find(digest) == before
            model.sort(key=lambda pair: pair[0] == digest)
        assert len(table) == len(model) <= limit
        assert table.full == (len(model) == limit)
    assert {digest: table.find(digest) for digest in range(1, 9)} == {
        digest: dict(model).get(digest) for digest in range(1, 9)
    }


def test_what_was_asked_for_last_goes_last() -> None:
    table = KnownTexts(2)
    table.enter(1, 10)
    table.enter(2, 20)
    assert table.find(1) == 10
    table.enter(3, 30)
    assert [table.find(digest) for digest in (1, 2, 3)] == [10, None, 30]


texts = st.text(st.characters(codec=None, exclude_categories=[]), max_size=12)  # lone surrogates too


@given(texts, texts, st.integers(1, 12))
def test_digests_tell_texts_apart_as_far_as_they_are_embedded(one: str, other: str, max_chars: int) -> None:
    def embedded(text: str) -> bytes:
        return text[:max_chars].encode("utf-8", "replace")

    same = embedded(one) == embedded(other)
    assert (digest_of(one, max_chars) == digest_of(other, max_chars)) == same
    assert NO_DIGEST < digest_of(one, max_chars) < 1 << 64


@pytest.mark.parametrize(("text", "digest"), [("", 13_020_603_013_274_838_756), ("beagle", 16_349_426_929_899_396_920)])
def test_a_digest_stays_the_same_for_ever(text: str, digest: int) -> None:
    """Stores hold them."""
    assert digest_of(text, 100) == digest
