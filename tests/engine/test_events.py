"""Events come back from their frames as they happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mos_pipeline.engine.events import (
    BatchDone,
    Event,
    Forgotten,
    Promoted,
    Repaid,
    Visited,
    decode_batches,
    decode_events,
    encode_events,
)
from mos_pipeline.memory.outcomes import (
    BatchOutcome,
    BatchRepaid,
    Placed,
    PromotionOutcome,
    PromotionRepaid,
    Told,
)
from mos_pipeline.messages import encode
from mos_pipeline.store.codec import pack_vectors

DIMENSION = 3
NONE = np.empty((0, DIMENSION), np.float16)
seqs = st.integers(0, (1 << 62) - 1)
texts = st.text(st.characters(codec=None, exclude_categories=[]), max_size=12)  # lone surrogates too
times = st.floats(0, 4e9)
some = st.lists(seqs, max_size=4)
tasks = st.lists(st.sampled_from(["continuity", "topics", "profile", "knowledge"]), max_size=2)
placed = st.builds(
    Placed, seqs, st.booleans(), texts, st.lists(texts, max_size=3), texts, some, st.integers(-1, 1 << 40)
)
outcomes = st.builds(
    BatchOutcome,
    some,
    st.lists(st.integers(-1, 1 << 40), max_size=4),
    st.lists(st.tuples(seqs, texts).map(list), max_size=3),
    st.lists(placed, max_size=3),
    times,
    some,
    tasks,
)
told = st.builds(Told, st.booleans(), texts, texts, some, texts, st.booleans(), st.integers(-1, 1 << 40))
promotions = st.builds(PromotionOutcome, some, texts, texts, st.lists(told, max_size=3), times, tasks)
overviews = st.lists(st.tuples(seqs, texts).map(list), max_size=3)
again = st.builds(BatchRepaid, some, some, overviews, some, st.lists(placed, max_size=3), times, some)
promoted_again = st.builds(PromotionRepaid, tasks, some, texts, texts, some, st.lists(told, max_size=3))
visits = st.lists(st.tuples(seqs, seqs, times, seqs).map(list), max_size=3)


def vectors(rows: int) -> st.SearchStrategy[Any]:
    return npst.arrays(np.float16, (rows, DIMENSION), elements=npst.from_dtype(np.dtype(np.float16)))


@st.composite
def events(draw: st.DrawFn) -> Event:
    what = draw(st.sampled_from([outcomes, promotions, again, promoted_again, some, visits]).flatmap(lambda kind: kind))
    match what:
        case BatchOutcome():
            what = BatchDone(draw(some), what, draw(vectors(sum(each.founded for each in what.placed))))
        case PromotionOutcome():
            what = Promoted(what, draw(vectors(sum(each.new for each in what.told))))
        case BatchRepaid():
            what = Repaid(what, draw(vectors(sum(each.founded for each in what.placed))))
        case PromotionRepaid():
            what = Repaid(what, draw(vectors(sum(each.new for each in what.told))))
        case _:
            what = Visited(what) if what and isinstance(what[0], list) else Forgotten(what)
    return Event(draw(texts), draw(texts), what)


def plain(event: Event) -> list[Any]:
    """What two events are compared by: everything but rows, and vectors by their bytes."""
    what: Any = event.what
    told = [type(what).__name__, event.user_id, event.assistant_id]
    if isinstance(what, Forgotten | Visited):
        return [*told, list(what[0])]
    seqs = list(what.seqs) if isinstance(what, BatchDone) else []
    bearers = "placed" if hasattr(what.outcome, "placed") else "told"
    outcome = what.outcome._replace(**{bearers: [each._replace(row=-1) for each in getattr(what.outcome, bearers)]})
    return [*told, seqs, type(outcome).__name__, *outcome, what.vectors.tobytes()]


@given(st.lists(events(), max_size=4))
def test_events_come_back_in_their_order_as_they_were_but_for_their_rows(given: list[Event]) -> None:
    found = decode_events(encode_events(given, DIMENSION))
    assert [plain(event) for event in found] == [plain(event) for event in given]


def test_events_without_any_vector_are_written_before_a_model_is_known() -> None:
    (event,) = decode_events(encode_events([Event("u", "a", Forgotten([3, 7]))], 0))
    assert event == Event("u", "a", Forgotten([3, 7]))


def test_a_batch_of_the_first_format_is_read() -> None:
    placed = Placed(7, True, "tea", ["cup"], "", [1], -1)
    body = encode([[["u", "a", [0, 1], [1], [-1], [[1, "so far"]], [placed]]], 2, pack_vectors(np.ones((1, 2), "<f2"))])
    (event,) = decode_batches(body)
    assert isinstance(event.what, BatchDone)
    assert event[:2] == ("u", "a")
    assert event.what.seqs == [0, 1]
    assert event.what.outcome == BatchOutcome([1], [-1], [[1, "so far"]], [placed], 0.0, [], [])
    assert event.what.vectors.tolist() == [[1.0, 1.0]]


def test_what_is_not_a_whole_body_is_refused() -> None:
    outcome = BatchOutcome([0], [-1], [[0, "x"]], [], 1.0)
    body = encode_events([Event("u", "a", BatchDone([0], outcome, np.ones((0, 3), np.float16)))], 3)
    decode_events(body)
    wrong = [body[:stop] for stop in range(len(body))]
    wrong += [body + b"\0", body[1:], encode(None), encode([]), encode([1] * 9), encode([None] * 6)]
    for data in wrong:
        with pytest.raises((ValueError, TypeError)):
            decode_events(data)


def test_what_nothing_is_owed_of_is_written_as_it_always_was() -> None:
    outcome, promotion = BatchOutcome([0], [-1], [], [], 1.0, [2]), PromotionOutcome([0], "p", "t", [], 1.0)
    events = [Event("u", "a", BatchDone([0], outcome, NONE)), Event("u", "a", Promoted(promotion, NONE))]
    old = [[0, "u", "a", [0], [0], [-1], [], [], 1.0, [2]], [1, "u", "a", [0], "p", "t", [], 1.0]]
    body = encode([old, DIMENSION, pack_vectors(NONE)])
    assert encode_events(events, DIMENSION) == body
    assert [plain(event) for event in decode_events(body)] == [
        plain(Event("u", "a", BatchDone([0], outcome._replace(owed=[]), NONE))),
        plain(Event("u", "a", Promoted(promotion._replace(owed=[]), NONE))),
    ]
