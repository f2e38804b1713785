"""What is repaid is told again from events as it was entered, whatever was written twice; and where pages go by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.config import load_config
from mos_pipeline.engine.checkpoints import decode_checkpoints, encode_checkpoints, take
from mos_pipeline.engine.events import BatchDone, Event, Forgotten, Promoted, Repaid, decode_events, encode_events
from mos_pipeline.engine.placing import continuity, place_again
from mos_pipeline.engine.retelling import Retelling
from mos_pipeline.memory.outcomes import BatchOutcome, BatchRepaid, Placed, PromotionOutcome, PromotionRepaid, Told
from mos_pipeline.memory.owed import OF_BATCH, OF_PROMOTION
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.runtime.vector_pool import VectorPool

D, PAGES, BATCH = 4, 24, 3
NONE = np.empty((0, D), np.float16)
NORTH, EAST, SOUTH = np.eye(D, dtype=np.float16)[:3]


class Memory:
    """One user's memory: entered as an owner does, by ``live``, or told again from events."""

    def __init__(self) -> None:
        self.pool = VectorPool(D, 4096, private=True)
        self.state = MemoryState("0" * 16, load_config())
        self.scope = self.state.scope("tom", "assistant")
        for seq in range(PAGES):
            self.state.pages.append(seq, self.scope.number)
        self.retelling = Retelling(self.state, PAGES, self.pool)

    def row(self, vector: np.ndarray[Any, Any]) -> int:
        (row,) = self.pool.allocate(self.scope.session_rows, 1).tolist()
        self.pool.write([row], vector[None])
        return int(row)

    def place(self, session_id: int, seqs: list[int], vector: np.ndarray[Any, Any], summary: str) -> Placed:
        row = self.row(vector)
        self.pool.commit([row], [session_id])
        return Placed(session_id, True, summary, [summary], "then", seqs, row)

    def vectors(self, placed: list[Placed]) -> np.ndarray[Any, Any]:
        return self.pool.read([entry.row for entry in placed if entry.founded])

    def tell(self, events: list[Event]) -> None:
        self.retelling.events(decode_events(encode_events(events, D)))

    def plain(self) -> list[Any]:
        kept = self.state.pages.seqs_of(self.scope.number).tolist()
        sessions = self.scope.mid_term.sessions
        vectors = self.pool.read([session.row for session in sessions]).tolist()
        memory = (
            self.scope.mid_term.as_plain(),
            self.state.chains.as_plain(kept),
            self.scope.long_term.profile.as_plain(),
        )
        facts = [fact.as_plain()[1:] for fact in self.scope.long_term.knowledge.facts]
        return [*memory, sorted(facts), self.scope.owed.as_plain(), vectors, self.pool.usage.used]


@pytest.fixture
def memory() -> Iterator[Memory]:
    one = Memory()
    yield one
    one.pool.close()


class Owner(Memory):
    """Does what an owner does, at random, and keeps the events."""

    def __init__(self, data: st.DataObject) -> None:
        super().__init__()
        self.draw: Any = data.draw
        self.given, self.told = 0, list[Event]()

    def note(self, what: BatchDone | Promoted | Repaid | Forgotten) -> None:
        self.told.append(Event("tom", "assistant", what))

    def some(self, tasks: tuple[str, ...]) -> list[str]:
        return [task for task in tasks if self.draw(st.booleans())]

    def continuity(self, seqs: list[int]) -> tuple[list[int], list[list[Any]]]:
        continues = [self.draw(st.booleans()) for _ in seqs]
        overviews = [f"overview {self.draw(st.integers(0, 99))}" for _ in seqs]
        before = seqs[0] - 1 if seqs[0] and self.state.pages.is_kept(seqs[0] - 1) else -1
        return continuity(before, seqs, {"continues": continues, "overviews": overviews})

    def batch(self) -> None:
        stop = min(self.given + BATCH, PAGES)
        seqs = [seq for seq in range(self.given, stop) if self.state.pages.is_kept(seq)]
        self.given = stop
        if seqs:
            self.enter(seqs)

    def enter(self, seqs: list[int]) -> None:
        sessions = self.scope.mid_term.sessions
        homeless = [seq for seq in seqs if self.scope.mid_term.session_of(seq) is None]
        placed = list[Placed]()
        if homeless and sessions and self.draw(st.booleans()):
            placed = [Placed(self.draw(st.sampled_from(sessions)).session_id, False, "", ["k"], "", homeless, -1)]
        elif homeless:
            placed = [self.place(self.scope.mid_term.reserve_id(), homeless, EAST, "stand-in")]
        links, overviews = self.continuity(seqs)
        outcome = BatchOutcome(seqs, links, overviews, placed, 1.0, [], self.some(OF_BATCH))
        vectors = self.vectors(placed)
        self.pool.release(self.state.apply(self.scope, outcome))
        self.note(BatchDone(seqs, outcome, vectors))

    def repay(self) -> None:
        owed = {task: list(self.scope.owed.pages(task)) for task in OF_BATCH}
        first = min((seqs[0] for seqs in owed.values() if seqs), default=None)
        if first is None:
            return
        tasks = [task for task in OF_BATCH if first in owed[task]]
        seqs = [first]
        while seqs[-1] + 1 < PAGES and all(seqs[-1] + 1 in owed[task] for task in tasks) and len(seqs) < BATCH:
            seqs.append(seqs[-1] + 1)
        links, overviews, placed = list[int](), list[list[Any]](), list[Placed]()
        if "continuity" in tasks:
            links, overviews = self.continuity(seqs)
        if "topics" in tasks:
            cut = self.draw(st.integers(1, len(seqs)))
            parts = [list(range(cut)), list(range(cut, len(seqs)))][: 1 + (cut < len(seqs))]
            topics = [{"keywords": ["k"], "content": "better", "pages": part} for part in parts]
            rows = [self.row(vector) for vector in (NORTH, SOUTH)[: len(topics)]]
            placed = place_again(self.scope, seqs, topics, rows, ["then"] * PAGES, self.pool)
        asked = seqs if "continuity" in tasks else [], links, overviews, seqs if "topics" in tasks else []
        repaid, vectors = BatchRepaid(*asked, placed, 2.0), self.vectors(placed)
        self.pool.release(self.state.repay_batch(self.scope, repaid))
        self.note(Repaid(repaid, vectors))

    def promote(self) -> None:
        seqs = sorted(seq for one in self.scope.mid_term.sessions for seq in one.fresh)[:4]
        if seqs:
            told = [Told(True, f"fact {seq}", "t", [seq], "", False, -1) for seq in seqs]
            text = f"a profile that is long enough, made from {seqs}"
            outcome = PromotionOutcome(seqs, text, "t", told, 3.0, self.some(OF_PROMOTION))
            self.state.promote(self.scope, outcome)
            self.note(Promoted(outcome, NONE))

    def repay_promotion(self) -> None:
        owed = {task: list(self.scope.owed.pages(task)) for task in OF_PROMOTION}
        first = min((seqs[0] for seqs in owed.values() if seqs), default=None)
        if first is not None:
            tasks = [task for task in OF_PROMOTION if first in owed[task]]
            told = [Told(True, f"better {first}", "t", [first], "", False, -1)] if "knowledge" in tasks else []
            text = f"a better profile, long enough and made from {first}" if "profile" in tasks else ""
            repaid = PromotionRepaid(tasks, [first], text, "t", [first] if told else [], told)
            self.state.repay_promotion(self.scope, repaid)
            self.note(Repaid(repaid, NONE))

    def forget(self) -> None:
        kept = [seq for seq in range(min(self.given, PAGES)) if self.state.pages.is_kept(seq)]
        if kept:
            gone = [self.draw(st.sampled_from(kept))]
            self.state.pages.forget(gone)
            forgotten = self.state.forget(self.scope, gone)
            self.pool.release(forgotten.rows)
            self.note(Forgotten(gone))
            for seq in sorted(forgotten.redo):  # nothing is repaid before they are worked on again
                self.enter([seq])


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_memory_told_again_is_as_it_was_whatever_is_written_twice(data: st.DataObject) -> None:
    owner, again = Owner(data), Memory()
    try:
        ends = [0]  # a checkpoint leaves out what is about to be worked on again
        steps = [owner.batch, owner.batch, owner.repay, owner.promote, owner.repay_promotion, owner.forget]
        for step in data.draw(st.lists(st.sampled_from(steps), max_size=14)):
            step()
            ends.append(len(owner.told))
            for seq in range(PAGES):
                session_id = owner.scope.mid_term.session_of(seq)
                session = owner.scope.mid_term.get(-1 if session_id is None else session_id)
                assert (session_id is None) == (session is None)
                assert session is None or (seq in session.seqs and session.row >= 0)
                assert not (owner.scope.owed.owes("topics", [seq]) and session is None)
        for seq in range(PAGES):
            if not owner.state.pages.is_kept(seq):
                again.state.pages.forget([seq])
                again.retelling.forgotten(again.scope, [seq])
        first = data.draw(st.sampled_from(ends))
        again.tell(owner.told[:first])
        if data.draw(st.booleans()):  # by way of a checkpoint
            batched = np.flatnonzero(again.retelling.batched).tolist()
            taken = take(again.state, again.scope, batched, again.pool.read)
            again.retelling.checkpoints(decode_checkpoints(encode_checkpoints([taken], D)))
        if not any(isinstance(event.what, Forgotten) for event in owner.told):
            again.tell(owner.told[:first])  # its writer was killed before it could say that it had written it
        again.tell(owner.told[first:])
        assert again.plain() == owner.plain()
    finally:
        owner.pool.close()
        again.pool.close()


def stand_ins(memory: Memory, *sessions: tuple[int, list[int]]) -> None:
    placed = [memory.place(number, seqs, EAST, f"stand-in {number}") for number, seqs in sessions]
    seqs = [seq for _, seqs in sessions for seq in seqs]
    owed = BatchOutcome(seqs, [-1] * len(seqs), [], placed, 1.0, [], ["topics"])
    memory.state.apply(memory.scope, owed)


def again(memory: Memory, seqs: list[int], *topics: tuple[np.ndarray[Any, Any], list[int]]) -> dict[str, list[int]]:
    """Place topics, each a vector and its pages; return the sessions' pages by their summaries."""
    rows = [memory.row(vector) for vector, _ in topics]
    told = [
        {"keywords": [f"word{number}"], "content": f"better {number}", "pages": [seqs.index(seq) for seq in pages]}
        for number, (_, pages) in enumerate(topics)
    ]
    placed = place_again(memory.scope, seqs, told, rows, ["then"] * PAGES, memory.pool)
    memory.pool.release(memory.state.repay_batch(memory.scope, BatchRepaid([], [], [], seqs, placed, 2.0)))
    sessions = memory.scope.mid_term.sessions
    assert memory.pool.usage.used == len(sessions)
    assert not memory.scope.owed.stand_ins & {session.session_id for session in sessions if "better" in session.summary}
    return {session.summary: session.seqs.tolist() for session in sessions}


def test_a_topic_takes_the_place_of_what_stood_in_and_what_had_joined_follows(memory: Memory) -> None:
    stand_ins(memory, (0, [0, 1]), (1, [2]))
    joined = [Placed(0, False, "", [], "", [3, 4], -1), Placed(1, False, "", [], "", [5], -1)]
    memory.state.apply(memory.scope, BatchOutcome([3, 4, 5], [-1] * 3, [], joined, 1.0))
    found = again(memory, [0, 1, 2], (NORTH, [0, 1, 2]))
    assert found == {"better 0": [0, 1, 2, 3, 4, 5]}
    assert memory.scope.mid_term.sessions[0].session_id == 0


def test_a_topic_that_is_like_another_session_joins_that_one_with_what_follows_it(memory: Memory) -> None:
    known = memory.place(0, [9], NORTH, "known")
    memory.state.apply(memory.scope, BatchOutcome([9], [-1], [], [known], 1.0))
    stand_ins(memory, (1, [0, 1]))
    joined = Placed(1, False, "", [], "", [2], -1)
    memory.state.apply(memory.scope, BatchOutcome([2], [-1], [], [joined], 1.0))
    assert again(memory, [0, 1], (NORTH, [0]), (SOUTH, [1])) == {"known": [0, 2, 9], "better 1": [1]}


def test_pages_that_had_joined_a_models_session_leave_it_and_it_notes_that(memory: Memory) -> None:
    known = memory.place(0, [9], NORTH, "known")
    memory.state.apply(memory.scope, BatchOutcome([9], [-1], [], [known], 1.0))
    joined = Placed(0, False, "", ["word"], "", [0], -1)
    memory.state.apply(memory.scope, BatchOutcome([0], [-1], [], [joined], 1.0, [], ["topics"]))
    assert again(memory, [0], (SOUTH, [0])) == {"known": [9], "better 0": [0]}
    assert memory.scope.mid_term.telling_of([0]) == [0, 1], "its keywords are from that page"


def test_a_session_whose_pages_part_goes_on_with_the_most_of_them(memory: Memory) -> None:
    stand_ins(memory, (0, [0, 1, 2]))
    found = again(memory, [0, 1, 2], (SOUTH, [0]), (NORTH, [1, 2]))
    assert found == {"better 1": [1, 2], "better 0": [0]}
    assert [session.session_id for session in memory.scope.mid_term.sessions] == [0, 1]
    assert memory.scope.mid_term.telling_of([0]) == [0, 1]
