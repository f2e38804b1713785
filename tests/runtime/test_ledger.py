"""The ledger's laws: a unit is in one place at a time, and a death is held against who caused it alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mos_pipeline.runtime.ledger import Ledger, Unit

WORKERS = ("a", "b", "c")


class LedgerMachine(RuleBasedStateMachine):
    """Keeps its own, simple account: the queue as a list, what each worker has, and how often each unit has killed."""

    @initialize(max_deaths=st.integers(1, 3), credit=st.integers(1, 12))
    def begin(self, max_deaths: int, credit: int) -> None:
        self.ledger = Ledger(max_deaths, credit)
        self.max_deaths, self.credit = max_deaths, credit
        self.units: dict[int, Unit] = {}
        self.waiting: list[int] = []
        self.hands: dict[str, list[int]] = {worker: [] for worker in WORKERS}
        self.started: set[int] = set()
        self.deaths: dict[int, int] = {}
        self.finished: set[int] = set()
        self.killers: set[int] = set()
        self.lost: set[int] = set()
        self.once: set[int] = set()

    def size(self, worker: str) -> int:
        return sum(len(self.units[unit_id].message) for unit_id in self.hands[worker])

    def room(self, worker: str, urgent: bool) -> int:
        """How many bytes there are already of what must share the room with such a unit."""
        beside = [self.units[unit_id] for unit_id in self.hands[worker]]
        return sum(len(unit.message) for unit in beside if unit.urgent or not urgent)

    @rule(works=st.lists(st.tuples(st.integers(1, 15), st.booleans()), max_size=4), kind=st.sampled_from("ab"))
    def add(self, works: list[tuple[int, bool]], kind: str) -> None:
        begin = len(self.units)
        units = [Unit(begin + i, kind, b"x" * size, urgent) for i, (size, urgent) in enumerate(works)]
        self.units |= {unit.unit_id: unit for unit in units}
        self.deaths |= {unit.unit_id: 0 for unit in units}
        self.ledger.add(units)
        urgent = [unit.unit_id for unit in units if unit.urgent]
        place = 0
        while urgent and place < len(self.waiting):
            before = self.units[self.waiting[place]]
            if not (before.urgent and before.kind == kind):
                break
            place += 1
        self.waiting[place:place] = urgent
        self.waiting += [unit.unit_id for unit in units if not unit.urgent]

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        unit_id = data.draw(st.integers(0, len(self.units)))
        assert self.ledger.withdraw(unit_id) == (unit_id in self.waiting)
        if unit_id in self.waiting:
            self.waiting.remove(unit_id)
            self.finished.add(unit_id)

    @rule(worker=st.sampled_from(WORKERS))
    def give(self, worker: str) -> None:
        before = self.hands[worker]
        unit = self.ledger.give(worker)
        if unit is None:
            first = self.waiting[0] if self.waiting else None
            suspect = any(self.deaths[unit_id] for unit_id in before)
            taken = 0 if first is None else self.room(worker, self.units[first].urgent)
            full = first is not None and taken + len(self.units[first].message) > self.credit
            # Nothing is held back without a reason, and never from empty hands.
            assert first is None or (before and (suspect or full or self.deaths[first]))
            return
        assert unit.unit_id == self.waiting.pop(0)
        taken = self.room(worker, unit.urgent)
        assert not taken or taken + len(unit.message) <= self.credit
        before.append(unit.unit_id)
        suspects = [unit_id for unit_id in before if self.deaths[unit_id]]
        assert not suspects or len(before) == 1

    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def start(self, data: Any, worker: str) -> None:
        known = st.sampled_from(sorted(self.units)) if self.units else st.just(99)
        told = data.draw(st.lists(known, max_size=3))
        self.ledger.started(worker, told)
        self.started -= set(self.hands[worker])
        self.started |= set(told) & set(self.hands[worker])

    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def finish(self, data: Any, worker: str) -> None:
        unit_id = data.draw(st.sampled_from(sorted(self.units)) if self.units else st.just(99))
        unit = self.ledger.finish(worker, unit_id)
        if unit_id in self.hands[worker]:
            assert unit is self.units[unit_id]
            self.hands[worker].remove(unit_id)
            self.finished.add(unit_id)
        else:
            assert unit is None

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        had, self.hands[worker] = self.hands[worker], []
        for unit_id in had:
            self.deaths[unit_id] += unit_id in self.started
        self.started -= set(had)
        killers = {unit.unit_id for unit in self.ledger.died(worker)}
        assert killers == {
            unit_id for unit_id in had if self.deaths[unit_id] >= self.max_deaths or unit_id in self.once
        }
        self.killers |= killers
        back = [unit_id for unit_id in had if unit_id not in killers]
        for urgent in (False, True):  # what somebody waits for comes before the rest
            mine = [unit_id for unit_id in back if self.units[unit_id].urgent == urgent]
            innocent = [unit_id for unit_id in mine if not self.deaths[unit_id]]
            suspects = sorted((unit_id for unit_id in mine if self.deaths[unit_id]), key=self.deaths.__getitem__)
            self.waiting[:0] = innocent + suspects

    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def hand_out_a_part(self, data: Any, worker: str) -> None:
        unit_id = data.draw(st.integers(0, len(self.units)))
        assert self.ledger.handed_out(worker, unit_id) == (unit_id in self.hands[worker])
        self.once |= {unit_id} & set(self.hands[worker])

    @rule(data=st.data())
    def abandon(self, data: Any) -> None:
        unit_id = data.draw(st.integers(0, len(self.units)))
        holder = next((worker for worker in WORKERS if unit_id in self.hands[worker]), None)
        assert self.ledger.abandon(unit_id) == holder
        if unit_id in self.waiting:
            self.waiting.remove(unit_id)
            self.finished.add(unit_id)
        if holder is not None:
            self.once.add(unit_id)

    @precondition(lambda self: len(self.units) > 5)
    @rule()
    def give_up(self) -> None:
        lost = [unit.unit_id for unit in self.ledger.give_up()]
        there = [*self.waiting, *(unit_id for had in self.hands.values() for unit_id in had)]
        assert sorted(lost) == sorted(there)
        self.lost.update(lost)
        self.waiting, self.hands = [], {worker: [] for worker in WORKERS}
        self.started.clear()

    @invariant()
    def every_unit_is_in_one_place(self) -> None:
        held = [unit_id for had in self.hands.values() for unit_id in had]
        places = [*self.waiting, *held, *self.finished, *self.killers, *self.lost]
        assert sorted(places) == sorted(self.units)
        assert len(self.ledger) == len(self.waiting) + len(held)
        for worker in WORKERS:
            assert self.ledger.busy(worker) == self.size(worker)
        for unit_id, unit in self.units.items():
            assert unit.deaths == self.deaths[unit_id] <= self.max_deaths

    def teardown(self) -> None:
        """Whatever happened, one worker that lives can do all that is left, one after the other."""
        for worker in WORKERS:
            self.die(worker)
        left = []
        while unit := self.ledger.give("last"):
            self.ledger.finish("last", unit.unit_id)
            left.append(unit.unit_id)
        assert left == self.waiting
        assert len(self.ledger) == 0


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def unit(unit_id: int, size: int = 1, *, urgent: bool = False) -> Unit:
    return Unit(unit_id, "work", b"x" * size, urgent)


def test_a_suspect_waits_for_empty_hands_and_then_is_alone() -> None:
    ledger = Ledger(3, 100)
    ledger.add(map(unit, range(4)))
    assert [given.unit_id for given in (ledger.give("a"), ledger.give("a")) if given] == [0, 1]
    ledger.started("a", [0])
    assert ledger.died("a") == []
    assert [given.unit_id for given in iter(lambda: ledger.give("b"), None)] == [1]
    ledger.finish("b", 1)
    suspect = ledger.give("b")
    assert suspect is not None and (suspect.unit_id, suspect.deaths) == (0, 1)
    assert ledger.give("b") is None
    ledger.finish("b", 0)
    assert [given.unit_id for given in iter(lambda: ledger.give("b"), None)] == [2, 3]


def test_only_what_was_begun_is_blamed() -> None:
    ledger = Ledger(1, 100)
    ledger.add([unit(0), unit(1)])
    ledger.give("a"), ledger.give("a")
    ledger.started("a", [1])
    assert [killer.unit_id for killer in ledger.died("a")] == [1]
    innocent = ledger.give("a")
    assert innocent is not None and (innocent.unit_id, innocent.deaths) == (0, 0)


def test_work_above_the_credit_is_done_alone() -> None:
    ledger = Ledger(3, 10)
    ledger.add(itertools.starmap(unit, enumerate((50, 4, 6, 1))))
    given = []
    for worker in ("a", "a", "b", "b", "b"):
        item = ledger.give(worker)
        given.append(None if item is None else item.unit_id)
    assert given == [0, None, 1, 2, None]


def test_urgent_work_finds_room_where_other_work_has_taken_it_all() -> None:
    ledger = Ledger(3, 100, units=2)
    ledger.add(map(unit, range(4)))
    ledger.give("a"), ledger.give("a")
    ledger.add([unit(4, urgent=True)])
    ledger.add([unit(5, urgent=True)])
    ledger.add([unit(6, urgent=True)])
    assert [given.unit_id for given in iter(lambda: ledger.give("a"), None)] == [4, 5]


def test_what_was_partly_handed_out_is_not_given_out_again() -> None:
    ledger = Ledger(3, 100)
    ledger.add(map(unit, range(3)))
    assert len(list(iter(lambda: ledger.give("a"), None))) == 3
    assert ledger.handed_out("a", 1)
    assert not ledger.handed_out("b", 2)
    assert ledger.abandon(2) == "a"
    assert [lost.unit_id for lost in ledger.died("a")] == [1, 2]
    assert [given.unit_id for given in iter(lambda: ledger.give("b"), None)] == [0]


@pytest.mark.parametrize("worker", ["a", "never heard of"])
def test_what_is_said_after_giving_up_is_late(worker: str) -> None:
    ledger = Ledger(3, 10)
    ledger.add([unit(0)])
    ledger.give("a")
    assert [lost.unit_id for lost in ledger.give_up()] == [0]
    ledger.started(worker, [0])
    assert ledger.finish(worker, 0) is None
    assert ledger.died(worker) == []
    assert len(ledger) == ledger.busy(worker) == 0
