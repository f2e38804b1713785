"""How many calls at once, how many in an hour, and what they cost: the laws of gate, budget and meter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.messages import decode, encode
from mos_pipeline.runtime.meter import Meter, Tally
from mos_pipeline.runtime.spending import Spending
from mos_pipeline.stages.budget import Budget, Window
from mos_pipeline.stages.gate import Gate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ran(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@given(st.integers(1, 16), st.lists(st.sampled_from(["answer", "refusal"]), max_size=60))
def test_the_limit_stays_between_one_and_the_most(most: int, news: list[str]) -> None:
    clock = Clock()
    gate = Gate(most, clock)
    for kind in news:
        before = gate.limit
        clock.now += 1
        if kind == "answer":
            gate.succeeded()
            assert before <= gate.limit <= min(most, before + 1)
        else:
            gate.refused(clock.now, 0.0)
            assert gate.limit == max(1.0, before / 2)
        assert 1 <= gate.limit <= most


def test_calls_refused_together_lower_the_limit_once() -> None:
    clock = Clock()
    gate = Gate(16, clock)
    for _ in range(10):
        clock.now += 0.001
        gate.refused(1000.0, 0.0)
    assert gate.limit == 8
    gate.refused(clock.now, 0.0)
    assert gate.limit == 4


def test_as_many_answers_as_the_limit_raise_it_by_about_one() -> None:
    gate = Gate(16, Clock())
    gate.limit = 8.0
    for _ in range(8):
        gate.succeeded()
    assert gate.limit == pytest.approx(9, abs=0.1)


def test_the_longest_pause_counts() -> None:
    clock = Clock()
    gate = Gate(4, clock)
    gate.refused(clock.now, 5.0)
    gate.refused(clock.now, 1.0)
    assert gate.closed_s == 5.0
    clock.now += 5.0
    assert gate.closed_s == 0.0


@given(st.integers(1, 5), st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_never_more_pass_than_the_limit_and_in_their_order(most: int, steps: list[int]) -> None:
    async def work() -> None:
        gate, entered, tasks = Gate(most), list[int](), list[asyncio.Task[None]]()

        async def call(number: int) -> None:
            await gate.enter()
            entered.append(number)

        for step in steps:
            if step == 0 and gate.in_flight:
                gate.leave()
            elif step == 1 and any(not task.done() for task in tasks):
                next(task for task in reversed(tasks) if not task.done()).cancel()
            else:
                tasks.append(asyncio.create_task(call(len(tasks))))
            await settled()
            assert gate.in_flight <= int(gate.limit)
            assert entered == sorted(entered)
            waiting = any(not task.done() for task in tasks)
            assert not waiting or gate.in_flight == int(gate.limit), "somebody waits though there is room"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    ran(work)


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 8)), min_size=1, max_size=60),
)
def test_no_stretch_of_an_hour_holds_more_than_the_amount(amount: int, wishes: list[tuple[float, int]]) -> None:
    window, now, spent = Window(amount), 0.0, list[tuple[float, int]]()
    for pause, wish in wishes:
        now += pause
        wait = window.wait_s(wish, now)
        assert wait >= 0
        now += wait
        assert window.wait_s(wish, now) == 0, "after the wait it may be spent"
        window.spend(wish, now)
        spent.append((now, wish))
        last_hour = sum(each for when, each in spent if now - when < 3600.0)
        assert last_hour <= max(amount, wish)
    assert len(window._spent) <= 122


@pytest.mark.parametrize(
    ("share", "amount", "seconds"), [(10, 10, 3600), (0.5, 1, 7200), (1.5, 1, 2400), (2.5, 2, 2880)]
)
def test_shares_that_are_no_whole_number_come_out_right(share: float, amount: int, seconds: float) -> None:
    window = Window.of_calls(share)
    assert (window._amount, window._seconds) == (amount, seconds)
    assert window._amount / window._seconds * 3600 == pytest.approx(share)


def test_a_budget_is_shared_and_waits_for_what_others_hold() -> None:
    clock = Clock()

    async def work() -> None:
        budget = Budget(8, 2000, 2, clock)  # 4 calls, 1000 tokens here
        await budget.hold(600)
        waiting = asyncio.create_task(budget.hold(600))
        await settled()
        assert not waiting.done()
        budget.settle(600, 300)
        await settled()
        assert waiting.done()
        budget.settle(600, 600)
        assert budget.wait_s(100) == 0
        assert budget.wait_s(101) == 3600.0
        clock.now += 3600
        assert budget.wait_s(1000) == 0
        for _ in range(4):
            await budget.hold(1)
            budget.settle(1, 1)
        assert budget.wait_s(1) == 3600.0
        clock.now += 1800
        assert budget.wait_s(1) == 1800.0

    ran(work)


def test_without_limits_nothing_waits() -> None:
    async def work() -> None:
        budget = Budget(0, 0, 2)
        for _ in range(100):
            await budget.hold(1_000_000)
        assert budget.wait_s(1) == 0

    ran(work)


counts = st.integers(0, 1 << 40)
answers = st.lists(st.tuples(st.floats(0.0, 5000.0), counts, counts), min_size=1, max_size=50)


@given(answers, st.floats(0.01, 1.0))
def test_a_quantile_is_right_to_within_a_class(given_answers: list[tuple[float, int, int]], share: float) -> None:
    tally = Tally()
    for answer in given_answers:
        tally.answered(*answer)
    ordered = sorted(max(seconds, 0.0001) for seconds, _, _ in given_answers)
    index = -(-share * len(ordered) // 1) - 1
    exact = ordered[max(0, min(len(ordered) - 1, int(index)))]
    assert tally.quantile_s(share) == pytest.approx(exact, rel=0.026)
    assert tally.tokens_in == sum(tokens for _, tokens, _ in given_answers)


@given(st.lists(st.tuples(st.sampled_from(["topics", "profile"]), st.floats(0, 100), counts, counts), max_size=30))
def test_what_workers_tell_adds_up(calls: list[tuple[str, float, int, int]]) -> None:
    alone, workers, added = Meter(), [Meter(), Meter()], Meter()
    for at, (kind, seconds, tokens_in, tokens_out) in enumerate(calls):
        for meter in (alone, workers[at % 2]):
            meter.of(kind).calls += 1
            meter.of(kind).answered(seconds, tokens_in, tokens_out)
        if at % 3 == 0:
            added.add(decode(encode(workers[at % 2].take())))
    for worker in workers:
        added.add(decode(encode(worker.take())))
        assert not worker.take()
    assert added.tallies == alone.tallies == alone.copy().tallies


def test_without_answers_there_is_no_latency() -> None:
    assert Tally().quantile_s(0.99) == 0.0


def test_what_was_spent_before_counts_for_the_rest_of_its_hour() -> None:
    clock = Clock()
    budget = Budget(2, 1000, 1, clock)
    budget.inherit([[3000.0, 1, 100], [1000.0, 1, 700]])
    assert budget.wait_s(100) == pytest.approx(600)
    clock.now += 600
    assert budget.wait_s(100) == 0
    assert budget.wait_s(400) == pytest.approx(2000)


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 5), st.integers(0, 100)), max_size=40))
def test_what_a_worker_has_spent_is_kept_for_an_hour(told: list[tuple[float, int, int]]) -> None:
    spending, now, all_told = Spending(), 5000.0, list[tuple[float, int, int]]()
    for pause, calls, tokens in told:
        now += pause
        meter = Meter()
        meter.of("topics").calls = calls
        meter.of("topics").tokens_lost = tokens
        spending.add(decode(encode(meter.take())), now)
        all_told.append((now, calls, tokens))
    left = spending.left(now)
    assert left == sorted(left, reverse=True)
    assert all(0 <= ago < 3600 for ago, _, _ in left)
    within = [entry for entry in all_told if now - entry[0] < 3600 - 10]
    assert sum(calls for _, calls, _ in left) >= sum(calls for _, calls, _ in within)
    assert sum(tokens for _, _, tokens in left) <= sum(tokens for _, _, tokens in all_told)
    assert len(left) <= 3600 / 10 + 1
