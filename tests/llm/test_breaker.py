"""When an endpoint counts as down, who is let through then, and when it is up again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.stages.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker
from mos_pipeline.testing import FakeOpenAI, Reply, replies
from tests.llm.bench import Bench, batch, chat
from tests.llm.test_limits import Clock
from tests.llm.test_portions import PAGES


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    breaker.gave_up(clock.now)
    assert breaker.down_since is not None
    return breaker


def test_it_opens_when_a_prompt_gave_up_and_nothing_was_heard_since_it_began() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    began = breaker.now()
    clock.now += 5
    breaker.heard()  # by another
    clock.now += 5
    breaker.gave_up(began)
    assert breaker.down_since is None
    assert breaker.admits
    breaker.gave_up(clock.now - 1)
    assert breaker.down_since is not None
    assert breaker.opened.is_set()
    assert not breaker.admits


def test_one_probe_at_a_time_at_growing_intervals() -> None:
    clock = Clock()
    breaker = opened(clock)
    longest = FIRST_PAUSE_S
    for _ in range(10):
        assert not breaker.admits
        clock.now += longest / 2 - 0.01
        assert not breaker.admits, "it is too soon"
        clock.now += longest / 2 + 0.02
        assert breaker.admits
        assert breaker.begin()
        assert not breaker.admits, "there is one already"
        breaker.end_probe()
        longest = min(2 * longest, LONGEST_PAUSE_S)
    breaker.try_soon()
    assert breaker.admits


def test_a_sign_of_life_closes_it_and_the_next_time_begins_with_short_pauses() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(8):
        clock.now += LONGEST_PAUSE_S
        breaker.begin()
        breaker.end_probe()
    breaker.begin()
    breaker.heard()
    breaker.end_probe()
    assert breaker.down_since is None
    assert breaker.admits
    assert not breaker.opened.is_set()
    assert not breaker.begin(), "no probe"
    clock.now += 1
    breaker.gave_up(clock.now)
    clock.now += FIRST_PAUSE_S
    assert breaker.admits


def test_parts_of_a_prompt_that_was_late_wait_for_what_is_left_until_something_is_heard() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    began = breaker.now()
    clock.now += 5
    breaker.late(began)
    clock.now += 5
    breaker.late(clock.now - 5)
    assert breaker.silence_s == 10, "since the first of them began"
    breaker.heard()
    assert breaker.silence_s == 0
    clock.now += 5
    breaker.late(began)
    assert breaker.silence_s == 0, "something was heard meanwhile"
    breaker.late(clock.now - 1)
    breaker.gave_up(clock.now)
    assert breaker.silence_s == 0, "from now on it is down"


@given(st.lists(st.sampled_from(["heard", "gave up", "call", "time"]), max_size=60))
def test_it_lets_through_all_while_closed_and_one_at_a_time_while_open(news: list[str]) -> None:
    clock = Clock()
    breaker, probes = Breaker(clock), 0
    for kind in news:
        clock.now += 40.0 if kind == "time" else 0.1
        if kind == "heard":
            breaker.heard()
            probes = 0
        elif kind == "gave up":
            breaker.gave_up(clock.now)
        elif kind == "call" and breaker.admits:
            probes += breaker.begin()
        assert probes <= 1
        assert breaker.admits or breaker.down_since is not None


DEAD: dict[str, Reply] = {"hang": replies.hang(), "500": replies.status(500), "reset": replies.reset()}
ALIVE: dict[str, Reply] = {
    "429": replies.status(429),
    "503 that says when": replies.status(503, retry_after=0.1),
    "no JSON": replies.content("no"),
    "404": replies.status(404),
}


@pytest.mark.parametrize("fault", DEAD)
def test_a_dead_endpoint_is_given_up_once_and_then_probed(fake: FakeOpenAI, impatient: None, fault: str) -> None:
    with Bench(fake, timeout_s=0.2, deadline_s=0.6, max_in_flight=2) as bench:
        fake.script.add(DEAD[fault], times=None)
        units = [bench.accept(batch()) for _ in range(40)]
        bench.run()
        assert all(bench.results[unit]["owed"] == ["continuity", "topics"] for unit in units)
        assert bench.down == [True]
        assert fake.calls < 40, "most have not been asked"
        assert bench.stage._caller.gate.in_flight == 0
        fake.script.clear()
        bench.stage._caller.breaker.try_soon()
        bench.ask(batch())
        assert bench.down == [True, False]
        assert bench.ask(batch())["owed"] == []


@pytest.mark.parametrize("fault", ALIVE)
def test_an_endpoint_that_refuses_is_not_dead(fake: FakeOpenAI, impatient: None, fault: str) -> None:
    with Bench(fake, timeout_s=0.2, deadline_s=0.5) as bench:
        fake.script.add(ALIVE[fault], times=None)
        for _ in range(2):
            assert bench.ask(batch())["owed"] == ["continuity", "topics"]
        assert bench.down == []


def test_a_prompt_that_the_endpoint_can_not_bear_tells_nothing_of_the_others(fake: FakeOpenAI, impatient: None) -> None:
    with Bench(fake, timeout_s=0.2, deadline_s=0.5) as bench:
        fake.script.add(replies.status(500), times=None, task="topics")
        for _ in range(3):
            assert bench.ask(batch())["owed"] == ["topics"]
        assert bench.down == []


def test_a_dead_endpoint_is_given_up_as_soon_where_it_was_asked_of_many_pages(
    fake: FakeOpenAI, impatient: None
) -> None:
    with Bench(fake, timeout_s=0.2, deadline_s=0.6) as bench:
        fake.script.add(replies.hang(), times=None)
        assert bench.ask(batch(PAGES))["owed"] == ["continuity", "topics"]
        assert bench.down == [True]
        for task in ("continuity", "topics"):
            sizes = [len(request.asked["pages"]) for request in fake.requests if request.task == task]
            assert sizes in ([40, 20, 10, 8], [40, 20, 10]), "the smallest part has not a deadline of its own"


def test_an_endpoint_that_is_slow_for_many_pages_is_not_dead(fake: FakeOpenAI, impatient: None) -> None:
    with Bench(fake, timeout_s=0.3, deadline_s=0.6) as bench:
        for task in ("continuity", "topics"):
            fake.script.add(replies.hang(), times=3, task=task)
        assert bench.ask(batch(PAGES))["owed"] == []
        assert bench.down == []


@pytest.mark.parametrize("stream", [False, True])
def test_who_waits_for_an_answer_is_told_at_once_that_it_is_down(
    fake: FakeOpenAI, impatient: None, stream: bool
) -> None:
    with Bench(fake, timeout_s=0.2, deadline_s=0.4) as bench:
        fake.script.add(replies.status(500), times=None)
        bench.ask(batch())
        assert bench.down == [True]
        calls = fake.calls
        result = bench.ask(chat(stream=stream, within_s=3600.0))
        assert "nor this question: status 500" in result["error"]
        assert "ask again when it is back" in result["error"]
        assert not result["late"]
        assert fake.calls == calls + 1, "but it was asked"
        fake.script.clear()
        assert "error" not in bench.ask(chat(stream=stream))
        assert bench.down == [True, False]


def test_who_waits_already_is_told_when_it_turns_out(fake: FakeOpenAI, impatient: None) -> None:
    with Bench(fake, timeout_s=0.2, deadline_s=0.4) as bench:
        fake.script.add(replies.status(500), times=None)
        waits = bench.accept(chat(within_s=3600.0))
        bench.accept(batch())
        bench.run()
        assert "ask again when it is back" in bench.results[waits]["error"]
