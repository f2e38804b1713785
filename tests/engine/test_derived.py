"""Derived data is gathered into frames: in the order in which it is of use, and never for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mos_pipeline.config import Store
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.events import BatchDone, Event, Promoted, decode_events
from mos_pipeline.engine.frames import decode_words
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.memory.outcomes import BatchOutcome, PromotionOutcome, Told
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.derived import VectorFrame, decode_vectors
from mos_pipeline.store.segments import FrameAddress

INTERVAL_S = 7.0


class Frames(Persistence):
    """Keeps the frames that it should give to the writer."""

    def __init__(self) -> None:
        self.given: list[tuple[FrameKind, bytes, int]] = []

    def frame(
        self, kind: FrameKind, body: bytes, last_page: int, written: Callable[[FrameAddress | None], None] | None = None
    ) -> None:
        self.given.append((kind, body, last_page))


def gather() -> tuple[Frames, Derived]:
    frames = Frames()
    derived = Derived(frames, Store(frame_pages=4, flush_interval_s=INTERVAL_S))
    derived.dimension = 2
    return frames, derived


def vectors(derived: Derived, *seqs: int) -> None:
    derived.vectors(vector_frame(*seqs))


def vector_frame(*seqs: int) -> VectorFrame:
    rows = np.array([[seq, 1] for seq in seqs], np.float16)
    return VectorFrame(np.array(seqs, np.int64), rows, np.array([3 * seq for seq in seqs], np.uint64))


def batch(derived: Derived, *seqs: int) -> None:
    outcome = BatchOutcome(list(seqs), [-1] * len(seqs), [], [], 0.0)
    derived.event(Event("user", "assistant", BatchDone(seqs, outcome, np.empty((0, 2), np.float16))))


def words(derived: Derived, seq: int) -> None:
    derived.words(seq, np.array([seq, 77], np.uint32), np.array([1, 2], np.uint8), 2 * seq)


def fill(derived: Derived, steps: dict[str, list[Any]]) -> None:
    for seq in steps["words"]:
        words(derived, seq)
    for seqs in steps["batches"]:
        batch(derived, *seqs)
    for seqs in steps["vectors"]:
        vectors(derived, *seqs)


ALL: dict[str, list[Any]] = {"words": [3, 9, 5], "batches": [(2, 4), (6, 1), (0,)], "vectors": [(5, 8), (7,)]}


def test_everything_is_given_at_a_flush_and_a_batch_after_its_pages_vectors() -> None:
    frames, derived = gather()
    assert derived.empty
    fill(derived, ALL)
    assert not derived.empty
    assert not frames.given
    derived.flush()
    assert derived.empty
    assert derived.due() is None
    bodies = {kind: body for kind, body, _ in frames.given}
    assert list(bodies) == [FrameKind.VECTORS, FrameKind.EVENTS, FrameKind.WORDS]
    found = decode_vectors(bodies[FrameKind.VECTORS])
    assert (found.seqs.tolist(), found.vectors[:, 0].tolist()) == ([5, 8, 7], [5, 8, 7])
    assert found.digests.tolist() == [15, 24, 21]
    batches = [event.what for event in decode_events(bodies[FrameKind.EVENTS])]
    assert [list(each.seqs) for each in batches if isinstance(each, BatchDone)] == [[2, 4], [6, 1], [0]]
    told = decode_words(bodies[FrameKind.WORDS])
    assert told is not None
    assert (told.seqs.tolist(), told.hashes.tolist()) == ([3, 9, 5], [3, 77, 9, 77, 5, 77])
    assert told.sittings.tolist() == [6, 18, 10]
    derived.flush()
    assert len(frames.given) == 3


def test_a_frame_names_the_highest_page_it_speaks_of_wherever_it_stands() -> None:
    """By it the next opening knows which numbers were in use, should the pages be gone."""
    frames, derived = gather()
    fill(derived, ALL)
    derived.flush()
    assert {kind: last for kind, _, last in frames.given} == {
        FrameKind.VECTORS: 8,
        FrameKind.EVENTS: 6,
        FrameKind.WORDS: 9,
    }


def test_a_batch_that_fills_its_frame_takes_the_waiting_vectors_along() -> None:
    frames, derived = gather()
    vectors(derived, 1, 0)
    for first in range(0, 16, 4):
        batch(derived, *range(first, first + 4))
    assert [(kind, last) for kind, _, last in frames.given] == [(FrameKind.VECTORS, 1), (FrameKind.EVENTS, 15)]


def test_what_comes_later_does_not_make_the_first_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    _, derived = gather()
    assert derived.due() is None
    for kind in range(3):
        now += 1.0
        [lambda: vectors(derived, 0), lambda: words(derived, 0), lambda: batch(derived, 0)][kind]()
        assert derived.due() == 101.0 + INTERVAL_S
    derived.flush()
    now = 200.0
    words(derived, 1)
    assert derived.due() == 200.0 + INTERVAL_S


def test_a_page_that_is_a_fact_has_its_vector_written_after_that() -> None:
    frames, derived = gather()
    told = [Told(True, "a fact", "2026", [seq], "", True, -1) for seq in (3, 4)]
    promoted = Promoted(PromotionOutcome([], "", "2026", told, 0.0), np.ones((2, 2), np.float16))
    derived.event_before_vectors(Event("user", "assistant", promoted), vector_frame(3, 4))
    vectors(derived, 5, 6, 7, 8)  # enough for a frame of their own
    assert [kind for kind, _, _ in frames.given] == [FrameKind.VECTORS]
    derived.flush()
    assert [(kind, last) for kind, _, last in frames.given[1:]] == [(FrameKind.EVENTS, 4), (FrameKind.VECTORS, 4)]
    assert derived.empty
    assert decode_vectors(frames.given[2][1])[0].tolist() == [3, 4]
