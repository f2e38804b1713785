"""The flow's laws: tasks begin in order, batches are applied in order, every page once."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mos_pipeline.engine.flow import Batch, ScopeFlow, Step


def test_split_puts_both_halves_in_the_batchs_place() -> None:
    first, middle, last = Batch((1, 2)), Batch((3, 4, 5), Step.TASKS, live=(3, 5), before=2), Batch((6,))
    flow = ScopeFlow()
    flow.batches.extend([first, middle, last])
    flow.split(middle)
    assert [batch.seqs for batch in flow.batches] == [(1, 2), (3,), (4, 5), (6,)]
    assert all(batch.step == Step.EMBEDDING and not batch.live for batch in flow.batches)
    assert [batch.alone for batch in flow.batches] == [False, True, True, False]
    assert flow.batches[0] is first and flow.batches[3] is last


def test_an_equal_batch_is_not_taken_for_the_one_that_is_split() -> None:
    flow = ScopeFlow()
    twin, batch = Batch((1, 2)), Batch((1, 2))
    flow.batches.extend([twin, batch])
    flow.split(batch)
    assert flow.batches[0] is twin


def test_tasks_wait_for_every_page_of_the_batch() -> None:
    flow = ScopeFlow()
    flow.batches.append(Batch((1, 2)))
    assert not list(flow.next_for_tasks({1}.__contains__))
    assert list(flow.next_for_tasks({1, 2}.__contains__)) == list(flow.batches)


def test_several_batches_become_one_in_their_place() -> None:
    flow = ScopeFlow()
    flow.batches.extend([Batch((1, 2), Step.SUMMARIES), Batch((3,)), Batch((4, 5)), Batch((6,)), Batch((7, 8))])
    ready = list(flow.next_for_tasks(range(3, 7).__contains__))
    assert [batch.seqs for batch in ready] == [(3,), (4, 5), (6,)]
    assert flow.join(ready[:2]) is flow.batches[1]
    assert [batch.seqs for batch in flow.batches] == [(1, 2), (3, 4, 5), (6,), (7, 8)]
    assert flow.join(ready[2:]) is ready[2]


def test_what_failed_together_is_not_joined_again_when_it_is_begun_anew() -> None:
    flow = ScopeFlow()
    flow.batches.append(Batch((1, 2, 3, 4)))
    flow.split(flow.batches[0])
    flow.restart({1})
    assert [(batch.seqs, batch.alone) for batch in flow.batches] == [((2,), True), ((3, 4), True)]


class FlowMachine(RuleBasedStateMachine):
    """Drives a flow as the coordinator does: embeds in any order, fails some batches until one page is left."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = ScopeFlow()
        self.pages = 0
        self.embedded: set[int] = set()
        self.begun: list[tuple[int, ...]] = []
        self.told: list[int] = []
        self.applied: list[int] = []
        self.dropped: list[int] = []

    def at(self, step: Step) -> list[Batch]:
        return [batch for batch in self.flow.batches if batch.step == step]

    @rule(size=st.integers(1, 5))
    def batch_comes(self, size: int) -> None:
        self.flow.batches.append(Batch(tuple(range(self.pages, self.pages + size))))
        self.pages += size

    @rule(data=st.data())
    def pages_are_embedded(self, data: Any) -> None:
        missing = sorted(set(range(self.pages)) - self.embedded)
        if missing:
            self.embedded.update(data.draw(st.lists(st.sampled_from(missing))))

    @rule()
    def everything_is_embedded(self) -> None:
        self.embedded.update(range(self.pages))

    @rule(most=st.integers(1, 3))
    def tasks_begin(self, most: int) -> None:
        ready = list(self.flow.next_for_tasks(self.embedded.__contains__))
        if not ready:
            oldest = next(iter(self.at(Step.EMBEDDING)), None)
            # Held back for a reason only: another's tasks run, or pages are not embedded.
            assert oldest is None or self.at(Step.TASKS) or not self.embedded.issuperset(oldest.seqs)
            return
        batch = self.flow.join(ready[:most])
        assert batch.step == Step.EMBEDDING and self.embedded.issuperset(batch.seqs)
        assert not self.at(Step.TASKS)
        assert batch.seqs[0] == len(self.told)  # all before it have been through their tasks
        batch.step = Step.TASKS
        self.begun.append(batch.seqs)

    @rule(well=st.booleans())
    def tasks_end(self, well: bool) -> None:
        for batch in self.at(Step.TASKS):
            if well or len(batch.seqs) == 1:
                batch.step = Step.SUMMARIES
                self.told.extend(batch.seqs)
            else:
                self.flow.split(batch)

    @rule(data=st.data())
    def summaries_are_embedded(self, data: Any) -> None:
        if waiting := self.at(Step.SUMMARIES):
            data.draw(st.sampled_from(waiting)).step = Step.READY

    @rule()
    def batch_is_applied(self) -> None:
        oldest = self.flow.batches[0] if self.flow.batches else None
        batch = self.flow.take_ready()
        assert (batch is None) == (oldest is None or oldest.step != Step.READY)
        if batch is not None:
            assert batch is oldest
            self.applied.extend(batch.seqs)

    @invariant()
    def every_page_is_in_order_and_once(self) -> None:
        left = [seq for batch in self.flow.batches for seq in batch.seqs]
        assert self.applied + left == list(range(self.pages))

    @invariant()
    def tasks_run_in_order(self) -> None:
        assert self.told == list(range(len(self.told)))
        steps = [batch.step for batch in self.flow.batches]
        assert steps == sorted(steps, key=lambda step: step < Step.SUMMARIES)  # no batch overtakes another's tasks
        assert steps.count(Step.TASKS) <= 1

    def teardown(self) -> None:
        self.everything_is_embedded()
        while self.flow.batches:
            self.tasks_begin(1)
            self.tasks_end(well=True)
            for batch in self.at(Step.SUMMARIES):
                batch.step = Step.READY
            self.batch_is_applied()
        assert self.applied == list(range(self.pages))


TestFlow = FlowMachine.TestCase
TestFlow.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
