"""Rounds of repayments: who is looked at, who gives way, and when the next begins. Without processes."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mos_pipeline.config import Llm
from mos_pipeline.engine.owed_work import Ended, Fate, OwedWork
from mos_pipeline.engine.repaying import LOOKED_AT_ONCE, Repaying
from mos_pipeline.memory.owed import Owed
from tests.llm.test_limits import Clock

INTERVAL_S = 60.0


@dataclass(eq=False)
class Fake:
    """Repays one page of each scope, but not of those that are ``busy``."""

    busy: set[int] = field(default_factory=set)
    asked: list[OwedWork] = field(default_factory=list)

    def choose(self, scope: Any, passed: Container[int]) -> list[int] | None:
        if scope.number in self.busy:
            return None
        return [] if scope.number in passed or not scope.owed else [scope.number]

    def ask(self, scope: Any, seqs: list[int], ended: Ended) -> OwedWork:
        self.asked.append(OwedWork(scope, seqs, ["topics"], ended, answered=["topics"]))
        return self.asked[-1]

    def answer(self, fate: Fate = Fate.REPAID) -> list[int]:
        """End all that is asked; return whose it was."""
        asked, self.asked = self.asked, []
        for work in asked:
            if fate is Fate.REPAID:
                work.scope.owed = Owed()
            work.end(fate)
        return [work.scope.number for work in asked]


class Rounds:
    """Rounds over some scopes, each of which is owed the topics of one page."""

    def __init__(self, count: int) -> None:
        self.clock, self.repayer = Clock(), Fake()
        self.scopes = [SimpleNamespace(number=number, owed={}) for number in range(count)]
        self.embedding = SimpleNamespace(ready=True)
        for scope in self.scopes:
            self.owe(scope.number)
        state: Any = SimpleNamespace(scopes=self.scopes)
        embedding: Any = self.embedding
        desk: Any = SimpleNamespace(supervisor=object())
        settings = Llm(provider="openai", repay_interval_s=INTERVAL_S)
        self.repaying = Repaying(settings, state, embedding, desk, [self.repayer], lambda: False, self.clock)
        self.repaying.may_begin = True

    def owe(self, number: int) -> None:
        self.scopes[number].owed = SimpleNamespace(counts=lambda: {"topics": 1})

    def rest(self) -> None:
        """Go on until the coordinator would rest."""
        for _ in range(10 * len(self.scopes) + 10):
            if not self.repaying.step():
                return
        raise AssertionError("it never rests")

    def wake(self) -> None:
        """Go on when it is time for a round."""
        due = self.repaying.due()
        assert due is not None, "nothing wakes it"
        self.clock.now = max(self.clock.now, due)
        self.rest()


def test_all_are_looked_at_before_it_rests() -> None:
    rounds = Rounds(3 * LOOKED_AT_ONCE)
    for _ in range(2):  # nobody can use what is answered: they are left alone for an interval, then for two
        rounds.wake()
        while rounds.repayer.asked:
            rounds.repayer.answer(Fate.UNUSABLE)
            rounds.rest()
    rounds.wake()
    assert not rounds.repayer.asked
    assert rounds.repaying.due() is not None, "that round is over"


def test_the_busy_are_left_to_the_next_round() -> None:
    rounds = Rounds(2 * LOOKED_AT_ONCE)
    rounds.repayer.busy = set(range(1, len(rounds.scopes)))
    rounds.wake()
    assert rounds.repayer.answer() == [0]
    rounds.rest()
    rounds.owe(0)
    rounds.wake()
    assert rounds.repayer.answer() == [0]
    rounds.rest()
    rounds.repayer.busy = {3}
    rounds.wake()
    found = list[int]()
    while rounds.repayer.asked:
        found += rounds.repayer.answer()
        rounds.rest()
    assert sorted(found) == [number for number in range(1, len(rounds.scopes)) if number != 3]


def test_who_waits_for_the_busy_gives_way_and_is_told_in_the_end() -> None:
    rounds = Rounds(3)
    rounds.repayer.busy = {1}
    one = rounds.repaying.new_waiter(lambda scope: scope.number == 1)
    other = rounds.repaying.new_waiter(lambda scope: scope.number == 2)
    rounds.repaying.request(one)
    rounds.rest()
    assert not rounds.repayer.asked
    rounds.repaying.request(other)
    rounds.rest()
    assert rounds.repayer.answer() == [2]
    rounds.rest()
    assert other.result is not None and other.result.repaid == 1
    rounds.wake()
    assert rounds.repayer.answer() == [0]
    rounds.rest()
    assert not one.event.is_set()
    rounds.repayer.busy = set()
    rounds.rest()
    assert rounds.repayer.answer() == [1]
    rounds.rest()
    assert one.result is not None and (one.result.repaid, one.result.owed) == (1, 0)


def test_who_does_not_wait_any_more_holds_nothing_up() -> None:
    rounds = Rounds(2)
    rounds.repayer.busy = {1}
    waiter = rounds.repaying.new_waiter(lambda scope: scope.number == 1)
    rounds.repaying.request(waiter)
    rounds.rest()
    rounds.repaying.give_up(waiter)
    rounds.rest()
    rounds.wake()
    assert rounds.repayer.answer() == [0]


def test_nothing_wakes_it_for_rounds_that_can_not_be_made() -> None:
    rounds = Rounds(1)
    rounds.embedding.ready = False
    assert rounds.repaying.due() is None
