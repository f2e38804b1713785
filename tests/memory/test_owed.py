from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.config import Config
from mos_pipeline.memory.chains import Chains
from mos_pipeline.memory.facts import FactBase
from mos_pipeline.memory.outcomes import BatchOutcome, BatchRepaid, Placed, PromotionOutcome, PromotionRepaid, Told
from mos_pipeline.memory.owed import Owed
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode, encode
from tests.memory import law

PAGES = 14
some = st.lists(st.integers(0, 30), max_size=12)
changes = st.lists(st.tuples(st.booleans(), st.sampled_from(["topics", "profile"]), some), max_size=12)


@law
@given(changes)
def test_what_is_owed_is_what_was_noted_and_not_settled(told: list[tuple[bool, str, list[int]]]) -> None:
    owed, wanted = Owed(), dict[str, set[int]]()
    for notes, task, seqs in told:
        if notes:
            owed.note([task], seqs)
            wanted[task] = wanted.get(task, set()) | set(seqs)
        else:
            owed.settle([task], seqs)
            wanted[task] = wanted.get(task, set()) - set(seqs)
        again = Owed.from_plain(decode(encode(owed.as_plain())))
        for one in (owed, again):
            assert {task: list(one.pages(task)) for task in wanted} == {t: sorted(seqs) for t, seqs in wanted.items()}
            assert one.counts() == {task: len(seqs) for task, seqs in wanted.items() if seqs}
            assert bool(one) == any(wanted.values())
            assert all(one.owes(t, seqs) for t, seqs in wanted.items())
            assert not one.owes("topics", [31])


class Stories:
    """Chains whose overviews are the pages that they tell of."""

    def __init__(self) -> None:
        self.chains = Chains()

    def tells_of(self, seq: int) -> set[int]:
        return set(map(int, self.chains.overview(seq).split()))

    def answer(self, run: list[int], continues: list[bool]) -> tuple[dict[int, int], list[tuple[int, str]]]:
        """Return what the task of continuity might tell of ``run``: links and overviews."""
        before = run[0] - 1
        if before >= 0 and self.chains.after(before) not in (-1, run[0]):
            before = -1
        links, overviews, so_far = dict[int, int](), list[tuple[int, str]](), set[int]()
        for at, (seq, yes) in enumerate(zip(run, continues, strict=True)):
            earlier = run[at - 1] if at else before
            if yes and earlier >= 0:
                so_far |= {earlier, *map(int, self.chains.overview_until(earlier).split())} if not at else set()
                links[seq] = earlier
            else:
                so_far, links[seq] = set(), -1
            so_far.add(seq)
            overviews.append((seq, " ".join(map(str, sorted(so_far)))))
        last = [seq for seq, after in pairwise([*run, -1]) if links.get(after, -1) != seq]
        return links, [entry for entry in overviews if entry[0] in last]


runs = st.tuples(st.integers(0, PAGES - 1), st.lists(st.booleans(), min_size=1, max_size=5))


@law
@given(st.lists(st.tuples(runs, st.booleans()), max_size=12))
def test_an_overview_tells_of_its_own_chain_alone_however_links_are_replaced(
    answers: list[tuple[tuple[int, list[bool]], bool]],
) -> None:
    told, yields = Stories(), set[int]()
    for (first, continues), stands_in in answers:
        run = [seq for seq in range(first, first + len(continues)) if seq < PAGES]
        links, overviews = told.answer(run, continues[: len(run)])
        had = {seq: told.tells_of(seq) for seq in range(PAGES)}
        yields -= set(run)
        lost = told.chains.relink(links, overviews, yields)
        yields |= {seq for seq, _ in overviews} if stands_in else set()
        for seq in range(PAGES):
            chain = told.chains.pages_of(told.chains.chain_of(seq))
            assert seq in chain
            assert told.tells_of(seq) <= set(chain)
            if had[seq] and not told.tells_of(seq):
                assert seq in lost or seq in run, "nobody knows that its overview is gone"
            assert not (seq in lost and told.tells_of(seq))
        assert {seq: told.chains.before(seq) for seq in run} == links
        for seq in run:
            assert told.tells_of(seq), "it was told of"


def scope_of(pages: int) -> tuple[MemoryState, Scope]:
    state = MemoryState("0" * 16, Config())
    scope = state.scope("tom", "assistant")
    for seq in range(pages):
        state.pages.append(seq, scope.number)
    return state, scope


def founded(session_id: int, seqs: list[int], row: int, summary: str = "stand-in") -> Placed:
    return Placed(session_id, True, summary, [summary], "then", seqs, row)


def joined(session_id: int, seqs: list[int]) -> Placed:
    return Placed(session_id, False, "", ["more"], "", seqs, -1)


OWED = ["continuity", "topics"]


def test_a_repaid_batch_replaces_summaries_and_moves_pages_that_stay_analysed() -> None:
    state, scope = scope_of(9)
    state.apply(scope, BatchOutcome([0, 1, 2], [-1, 0, 1], [[2, "so"]], [founded(0, [0, 1, 2], 70)], 1.0, [], OWED))
    state.apply(scope, BatchOutcome([3, 4], [-1, 3], [], [joined(0, [3]), founded(1, [4], 71, "model's")], 2.0))
    state.promote(scope, PromotionOutcome([0], "", "", [], 3.0))
    assert scope.owed.counts() == {"continuity": 3, "topics": 3}
    assert scope.owed.stand_ins == {0}
    topics = [founded(0, [0, 1, 3], 72, "better"), joined(1, [2])]
    rows = state.repay_batch(
        scope, BatchRepaid([0, 1, 2], [-1, 0, -1], [[1, "then"], [2, "now"]], [0, 1, 2], topics, 4.0)
    )
    assert rows == [70]
    assert not scope.owed
    assert not scope.owed.stand_ins
    first, second = scope.mid_term.sessions
    assert (first.summary, first.row, first.seqs.tolist(), first.fresh.tolist()) == ("better", 72, [0, 1, 3], [1, 3])
    assert first.tells_of.tolist() == [2], "its keywords do"
    assert (second.summary, second.row, second.seqs.tolist(), second.fresh.tolist()) == ("model's", 71, [2, 4], [2, 4])
    assert [first.interactions, second.interactions] == [0, 2], "those that were there count no second time"
    assert [state.chains.before(seq) for seq in range(5)] == [-1, 0, -1, -1, 3]
    assert [state.chains.overview(seq) for seq in range(3)] == ["then", "then", "now"]


def test_a_session_that_all_pages_have_left_goes() -> None:
    state, scope = scope_of(4)
    state.apply(scope, BatchOutcome([0], [-1], [], [founded(0, [0], 70, "model's")], 1.0))
    state.apply(scope, BatchOutcome([1, 2], [-1, -1], [], [founded(1, [1, 2], 71)], 2.0, [], ["topics"]))
    assert state.repay_batch(scope, BatchRepaid([], [], [], [1, 2], [joined(0, [1, 2])], 3.0)) == [71]
    (session,) = scope.mid_term.sessions
    assert session.seqs.tolist() == [0, 1, 2]
    assert not scope.owed.stand_ins


def test_a_repaid_promotion_replaces_the_facts_that_only_its_pages_state() -> None:
    state, scope = scope_of(9)
    facts = [fact("only one", 0), fact("both", 0), fact("both", 5), fact("other", 5)]
    state.promote(
        scope, PromotionOutcome([0, 5], "a profile that is long enough to be one", "t", facts[:2], 1.0, ["knowledge"])
    )
    state.promote(scope, PromotionOutcome([5], "", "t", facts[2:], 2.0))
    scope.long_term.knowledge.take_over("taken over", "then")
    repaid = PromotionRepaid(["knowledge"], [0], "", "t", [0], [fact("better", 0)])
    state.repay_promotion(scope, repaid)
    known = {one.text: one.seqs.tolist() for one in scope.long_term.knowledge.facts}
    assert known == {"both": [5], "other": [5], "better": [0], "taken over": []}
    assert scope.owed.counts() == {"knowledge": 1}
    assert scope.long_term.profile.text == "a profile that is long enough to be one"


def fact(text: str, seq: int) -> Told:
    return Told(True, text, "t", [seq], "", True, -1)


@pytest.mark.parametrize("session_goes", [True, False])
def test_forgetting_a_page_leaves_to_the_new_batch_what_is_owed_of_the_others(*, session_goes: bool) -> None:
    state, scope = scope_of(6)
    placed = [founded(0, [0, 1], 70), founded(1, [2], 71)]
    state.apply(scope, BatchOutcome([0, 1, 2], [-1, 0, 1], [[2, "so"]], placed, 1.0, [], OWED))
    if not session_goes:
        scope.mid_term.drop(0)
    forgotten = state.forget(scope, [0])
    assert forgotten.redo == {1, 2}
    left = {"topics": [2]} if session_goes else {"topics": [1, 2]}
    assert {task: list(scope.owed.pages(task)) for task in scope.owed.counts()} == left
    assert scope.owed.stand_ins == ({1} if session_goes else {0, 1})


def test_what_is_evicted_is_not_owed() -> None:
    state, scope = scope_of(6)
    state.apply(scope, BatchOutcome([0, 1], [-1, 0], [], [founded(0, [0, 1], 70)], 1.0, [], OWED))
    state.apply(scope, BatchOutcome([2], [-1], [], [founded(1, [2], 71)], 1.0, [0], OWED))
    assert scope.owed.counts() == {"continuity": 1, "topics": 1}
    assert scope.owed.stand_ins == {1}


def test_a_fact_that_other_pages_word_or_that_was_taken_over_is_not_retracted() -> None:
    base = FactBase(10)
    base.add("one", "t", [1])
    base.add("two", "t", [1, 2])
    three, _ = base.take_over("three", "t")
    base.add("three", "t", [1])
    assert [one.text for one in base.only_of([1])] == ["one"]
    assert [one.text for one in base.retract([1])] == ["one"]
    assert {one.text: one.seqs.tolist() for one in base.facts} == {"two": [2], "three": []}
    assert three.taken_over == "t"
