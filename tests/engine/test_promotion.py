"""Promotions: which tasks are given out and when; with stand-ins for whoever works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.config import Config, Llm, LongTerm
from mos_pipeline.engine.bulk import Bulk
from mos_pipeline.engine.desk import Answer
from mos_pipeline.engine.embedding import RowsAnswer
from mos_pipeline.engine.events import Event, Promoted
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.memory.outcomes import Placed
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.messages import PageRecord, encode
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.runtime.vector_pool import VectorPool
from tests.memory import law

NOW = 1.7e9
EVERY = LongTerm().promotion_pages
PROFILE = "Is and has\n- I have a beagle named Rex. (2026-03-01)"
RESULT: dict[str, Any] = {"profile": PROFILE, "user": [], "assistant": [], "owed": []}
EXTRACTIVE = Llm()
VECTORS = {
    "I have a dog.": (1.0, 0.0),
    "I own a dog.": (0.98, 0.199),
    "A dog is mine.": (0.97, -0.243),
    "I play the violin.": (0.0, 1.0),
}


class Office:
    """A promotion of one scope, with itself in the place of the desk, the reader, the embedder and the store."""

    def __init__(self, pool: VectorPool, llm: Llm) -> None:
        self.more = False  # whether pages are on their way into sessions
        self.pool, self.ready, self.dimension = pool, True, 2
        self.asked = list[tuple[list[Any], Answer]]()  # not answered yet
        self.begun = list[int]()  # how many pages there were when a promotion began
        self.promoted = list[list[int]]()
        self.facts: dict[str, list[dict[str, Any]]] = {}
        self.state = MemoryState("0" * 16, Config())
        self.scope = self.state.scope("tom", "assistant")
        self.promotion = Promotion(
            LongTerm(),
            self.state,
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            Bulk(llm),
            lambda _: self.more,
            lambda: NOW,
        )

    def submit(self, role: str, kind: str, payload: Any, answer: Answer) -> int:
        assert (role, kind) == ("llm", "promotion")
        self.begun.append(len(self.state.pages))
        self.asked.append((payload["pages"], answer))
        return 0

    def send(self, owner: int, texts: Sequence[str], answer: RowsAnswer, *, ahead: bool = False) -> None:
        assert ahead
        rows = self.pool.allocate(owner, len(texts))
        self.pool.write(rows, np.array([VECTORS[text] for text in texts], np.float16))
        answer(rows.tolist(), Outcome(0, "done"))

    def read_many(self, seqs: Sequence[int]) -> list[bytes]:
        said = [PageRecord("tom", "assistant", f"page {seq}", "", f"day {seq}", None, None, None) for seq in seqs]
        return list(map(encode, said))

    def event(self, event: Event) -> None:
        assert isinstance(event.what, Promoted)
        self.promoted.append(event.what.outcome.seqs)

    def grow(self, count: int, session_id: int = 0) -> None:
        """Let a batch of pages come into a session of the scope's."""
        first = len(self.state.pages)
        seqs = list(range(first, first + count))
        for seq in seqs:
            self.state.pages.append(seq, self.scope.number)
        self.scope.mid_term.apply(
            Placed(session_id, self.scope.mid_term.get(session_id) is None, "tea", ["tea"], "2024", seqs, -1), NOW
        )
        self.scope.long_term.since_promotion += count
        self.promotion.consider(self.scope)

    def answer(self) -> None:
        """Answer what was asked for."""
        if self.asked:
            _, answer = self.asked.pop()
            answer(Outcome(0, "done", result=RESULT | self.facts))

    def tell(self, **facts: list[str]) -> None:
        """Answer with facts of the ``user`` and the ``assistant``, each on a page of its own."""
        self.facts = {
            whose: [{"text": text, "page": page} for page, text in enumerate(texts)] for whose, texts in facts.items()
        }
        self.answer()


@contextmanager
def office(llm: Llm = EXTRACTIVE) -> Iterator[Office]:
    pool = VectorPool(2, 65536)
    try:
        yield Office(pool, llm)
    finally:
        pool.close()


def test_while_more_pages_are_on_their_way_it_waits_for_as_many_as_one_call_takes() -> None:
    with office(Llm(provider="openai", bulk_tokens=3 * EVERY)) as desk:  # of two tokens each
        desk.more = True
        desk.grow(EVERY, 0)
        desk.grow(2 * EVERY, 1)
        assert not desk.asked
        desk.grow(4 * EVERY, 2)
        assert [len(pages) for pages, _ in desk.asked] == [3 * EVERY]  # of the hottest session
        desk.answer()
        assert not desk.asked  # what is left waits, and not for 36 other pages
        desk.more = False
        desk.promotion.consider(desk.scope)
        assert [len(pages) for pages, _ in desk.asked] == [3 * EVERY]
        desk.answer()
        told = [seq for seqs in desk.promoted for seq in seqs]
        assert sorted(told) == list(range(6 * EVERY))  # the rest of the hottest session has cooled with it
        desk.grow(EVERY - 1)
        assert not desk.asked
        desk.grow(1)
        assert [len(pages) for pages, _ in desk.asked] == [EVERY]


def test_profile_and_knowledge_are_asked_for_together_and_one_promotion_at_a_time() -> None:
    with office() as desk:
        desk.grow(9)
        assert [len(pages) for pages, _ in desk.asked] == [9]
        desk.grow(EVERY + 5)
        assert len(desk.asked) == 1  # what became hot meanwhile waits
        assert not desk.promoted
        assert not desk.scope.long_term.profile.text
        desk.answer()
        assert desk.promoted == [list(range(9))]
        assert desk.scope.long_term.profile.text == PROFILE
        assert not desk.asked  # its session has cooled
        desk.grow(9)
        assert [len(pages) for pages, _ in desk.asked] == [EVERY]


def test_facts_that_say_nearly_the_same_are_one_wherever_they_were_told() -> None:
    with office() as desk:
        desk.grow(9)
        desk.tell(user=["I have a dog.", "I own a dog.", "I play the violin."], assistant=["I own a dog."])
        known = [(fact.text, list(fact.seqs)) for fact in desk.scope.long_term.knowledge.facts]
        assert sorted(known) == [("I have a dog.", [0, 1]), ("I play the violin.", [2])]
        assert [fact.text for fact in desk.scope.long_term.assistant_knowledge.facts] == ["I own a dog."]
        assert desk.pool.usage.used == 3
        desk.grow(EVERY)
        desk.tell(user=["A dog is mine.", "I have a dog."])
        known = [(fact.text, list(fact.seqs)) for fact in desk.scope.long_term.knowledge.facts]
        assert sorted(known) == [("I have a dog.", [0, 1, 9, 10]), ("I play the violin.", [2])]
        assert desk.pool.usage.used == 3


@law
@given(st.lists(st.none() | st.integers(1, 20)))
def test_there_is_one_in_so_many_pages_and_each_page_is_analysed_once(history: list[int | None]) -> None:
    with office() as desk:
        for grown in history:
            desk.answer() if grown is None else desk.grow(grown)
            assert len(desk.asked) <= 1
        while desk.asked:
            desk.answer()
        assert all(after - before >= EVERY for before, after in pairwise(desk.begun))
        assert all(0 < len(seqs) <= EVERY for seqs in desk.promoted)
        analysed = [seq for seqs in desk.promoted for seq in seqs]
        assert sorted(set(analysed)) == sorted(analysed)
        left = set(range(len(desk.state.pages))) - set(analysed)
        assert all(set(session.fresh) == left for session in desk.scope.mid_term.sessions)
