"""What crosses the socket comes back as it was; what a stranger sends in its place is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline import Compacted, Hit, Knowledge, KnowledgeHit, Page, Parts, Profile, Retrieved, Session, Stats
from mos_pipeline.errors import InputError
from mos_pipeline.messages import decode, encode
from mos_pipeline.service.protocol import METHODS, PROTOCOL, Request, parse_request
from mos_pipeline.service.wire import as_plain, from_plain

texts = st.text(max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
numbers = st.integers(0, 1 << 62)
floats = st.floats(allow_nan=False)
ids = st.lists(texts, max_size=3).map(tuple)
pages = st.builds(Page, *[texts] * 6, st.dictionaries(texts, plain, max_size=2))
parts = st.builds(Parts, st.none() | floats, *[floats] * 4)
hits = st.builds(Hit, floats, pages, st.none() | floats, floats, texts, st.none() | numbers, st.none() | parts)
facts = st.builds(Knowledge, texts, texts, ids)
fact_hits = st.lists(st.builds(KnowledgeHit, floats, facts), max_size=2)
few_pages = st.lists(pages, max_size=2)
ANSWERS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Compacted, st.builds(Compacted, numbers, numbers)),
    (Page, st.none() | pages),
    (Profile, st.builds(Profile, texts, texts)),
    (dict[bytes, int], st.dictionaries(st.binary(max_size=8), numbers, max_size=3)),
    (list[Knowledge], st.lists(facts, max_size=3)),
    (list[Page], few_pages),
    (list[Session], st.lists(st.builds(Session, numbers, texts, ids, texts, floats, numbers, ids), max_size=3)),
    (list[str], st.lists(texts, max_size=3)),
    (
        Retrieved,
        st.builds(
            Retrieved,
            st.lists(hits, max_size=2),
            few_pages,
            st.booleans(),
            fact_hits,
            fact_hits,
            texts,
            st.lists(texts, max_size=2),
        ),
    ),
]


@settings(max_examples=200, deadline=None)
@given(st.one_of(*(st.tuples(st.just(kind), answers) for kind, answers in ANSWERS)))
def test_every_answer_comes_back_as_it_was(told: tuple[Any, Any]) -> None:
    kind, answer = told
    assert from_plain(kind, decode(encode(as_plain(answer)))) == answer


@given(plain)
def test_what_is_no_answer_is_told_so(data: Any) -> None:
    for kind in (Retrieved, list[Page], Stats):
        try:
            from_plain(kind, data)
        except (TypeError, KeyError, AttributeError):
            continue


@given(plain | st.lists(plain, min_size=4, max_size=4))
def test_what_is_no_request_is_refused(message: Any) -> None:
    with pytest.raises(InputError):
        parse_request(message)


@given(st.sampled_from(sorted(METHODS)), st.lists(plain, max_size=3), st.dictionaries(texts, plain, max_size=3))
def test_a_request_is_read_as_it_was_asked(method: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    assert parse_request(decode(encode([PROTOCOL, method, args, kwargs]))) == Request(method, args, kwargs)


def test_a_moment_crosses_as_its_text() -> None:
    assert as_plain({"since": datetime(2026, 3, 1, 10, tzinfo=UTC)}) == {"since": "2026-03-01 10:00:00+00:00"}
