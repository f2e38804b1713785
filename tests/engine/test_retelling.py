"""Forgetting ahead of the events, and taking that back, leaves memory as if it had never been done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mos_pipeline.config import load_config
from mos_pipeline.engine.checkpoints import decode_checkpoints, encode_checkpoints, take
from mos_pipeline.engine.events import BatchDone, Event, Forgotten
from mos_pipeline.engine.retelling import Retelling
from mos_pipeline.memory.outcomes import BatchOutcome, Placed
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.runtime.vector_pool import VectorPool

D = 8
VECTORS = np.eye(D, dtype=np.float16)


class Told:
    """A memory that is told events of one user's ten pages."""

    def __init__(self) -> None:
        self.pool = VectorPool(D, 4096, private=True)
        self.state = MemoryState("0" * 16, load_config())
        self.scope = self.state.scope("tom", "assistant")
        for seq in range(10):
            self.state.pages.append(seq, self.scope.number)
        self.retelling = Retelling(self.state, 0, self.pool)
        self.retelling.grow(10)

    def tell(self, what: BatchDone | Forgotten) -> None:
        self.retelling.events([Event("tom", "assistant", what)])

    def forget(self, seq: int) -> None:
        self.state.pages.forget([seq])
        self.retelling.forgotten(self.scope, [seq])

    def plain(self) -> list[Any]:
        kept = self.state.pages.seqs_of(self.scope.number).tolist()
        return [self.scope.mid_term.as_plain(), self.state.chains.as_plain(kept), self.retelling.batched.tolist()]


@pytest.fixture
def told() -> Iterator[tuple[Told, Told]]:
    pair = Told(), Told()
    yield pair
    for one in pair:
        one.pool.close()


def batch(seqs: list[int], *placed: tuple[int, bool, list[int]]) -> BatchDone:
    entries = [Placed(number, new, f"topic {number}", ["word"], "then", pages, -1) for number, new, pages in placed]
    links = [-1, *seqs[:-1]]
    founded = [number for number, new, _ in placed if new]
    return BatchDone(seqs, BatchOutcome(seqs, links, [[seqs[-1], "so far"]], entries, 1.0), VECTORS[founded])


def test_events_that_joined_what_was_forgotten_ahead_are_told_as_they_happened(told: tuple[Told, Told]) -> None:
    for one in told:
        one.tell(batch([0, 1], (1, True, [0, 1])))
        one.forget(0)
    ahead, _ = told
    ahead.retelling.forget_ahead()
    assert not ahead.retelling.tells_of_forgotten
    assert len(ahead.scope.mid_term) == 0
    ahead.retelling.take_back()
    for one in told:
        one.tell(batch([2, 3], (1, False, [2]), (2, True, [3])))  # before the owner had learned of the tombstone
        one.tell(Forgotten([0]))
        assert not one.retelling.tells_of_forgotten
    assert [session.seqs.tolist() for session in ahead.scope.mid_term.sessions] == [[3]]
    assert ahead.plain() == told[1].plain()
    assert ahead.pool.usage.used == told[1].pool.usage.used == 1


def test_taking_back_what_was_not_done_changes_nothing(told: tuple[Told, Told]) -> None:
    for one in told:
        one.tell(batch([0, 1], (1, True, [0, 1])))
    told[0].retelling.forget_ahead()
    told[0].retelling.take_back()
    assert told[0].plain() == told[1].plain()


def test_a_checkpoint_may_tell_of_a_page_whose_batch_is_to_be_made_again(told: tuple[Told, Told]) -> None:
    """It was forgotten, and everything killed, before the event that takes it out was written."""
    owner, later = told
    owner.tell(batch([0, 1], (1, True, [0, 1])))
    # Page 1 is being worked on again, as its chain has lost a page; so it does not count as batched.
    body = encode_checkpoints([take(owner.state, owner.scope, [0], owner.pool.read)], D)
    later.state.pages.forget([1])
    later.retelling.checkpoints(decode_checkpoints(body))
    assert later.retelling.batched[:2].tolist() == [True, False]
    assert later.retelling.tells_of_forgotten
    later.retelling.forget_the_rest()
    assert len(later.scope.mid_term) == 0
    assert later.state.chains.overview(0) == ""
