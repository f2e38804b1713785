"""Units of kind chat, in the stage that asks an endpoint, in this process: answers, pieces, faults."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.runtime.worker import WITHDRAW
from mos_pipeline.stages.endpoint import WAYS
from mos_pipeline.stages.streamed import StreamedAnswer
from mos_pipeline.testing import FakeOpenAI, Reply, replies
from tests.llm.bench import KEY, PATIENCE_S, Bench, batch, chat

pytestmark = pytest.mark.usefixtures("impatient")

LONG = "You adopted a beagle named Rex, and he is three years old. " * 4
BOTH = pytest.mark.parametrize("stream", [False, True])


def text_of(bench: Bench, unit_id: int) -> str:
    return "".join([*bench.pieces.get(unit_id, []), bench.results[unit_id]["text"]])


def failed(fake: FakeOpenAI, payload: Any, **settings: Any) -> dict[str, Any]:
    """Return the result of a chat that has no answer."""
    with Bench(fake, **settings) as bench:
        result: dict[str, Any] = bench.ask(payload)
    assert set(result) == {"error", "late"}
    assert KEY not in result["error"]
    return result


@BOTH
def test_it_is_asked_as_it_is_and_answered_freely(fake: FakeOpenAI, stream: bool) -> None:
    with Bench(fake, model="some-model") as bench:
        unit = bench.accept(chat(stream=stream))
        bench.run()
        assert text_of(bench, unit) == "You said: Which pet do I have?"
        assert bool(bench.pieces) == stream
        told = bench.meter.tallies
    (request,) = fake.requests
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    assert request.body == {
        "model": "some-model",
        "messages": chat()["messages"],
        "temperature": 0.7,
        "max_tokens": 50,
        **more,
    }
    assert set(told) == {"answer"}
    assert (told["answer"].calls, told["answer"].retries, told["answer"].fallbacks) == (1, 0, 0)
    assert (told["answer"].tokens_in, told["answer"].tokens_out) == (fake.tokens_in, fake.tokens_out)


def test_pieces_are_handed_out_before_the_answer_is_whole(fake: FakeOpenAI) -> None:
    fake.script.add(replies.paced(0.05, replies.content(LONG)))
    with Bench(fake) as bench:
        unit = bench.accept(chat(stream=True))
        while not bench.pieces:
            bench.stage.step(bench)
        assert fake.answered == 0
        assert bench.results == {}
        bench.run()
        assert len(bench.pieces[unit]) > 10
        assert text_of(bench, unit) == LONG


@BOTH
@pytest.mark.parametrize(
    "fault", [replies.status(429, retry_after=0.05), replies.status(500), replies.status(503), replies.reset()], ids=str
)
def test_what_fails_before_the_first_piece_is_asked_again(fake: FakeOpenAI, fault: Reply, stream: bool) -> None:
    fake.script.add(replies.reset("") if fault.end == "reset" else fault)  # of nothing, half is no piece
    with Bench(fake) as bench:
        unit = bench.accept(chat(stream=stream))
        bench.run()
        assert text_of(bench, unit) == "You said: Which pet do I have?"
        assert bench.meter.tallies["answer"].retries == 1
    assert fake.calls == 2


def test_what_fails_after_the_first_piece_is_not(fake: FakeOpenAI) -> None:
    fake.script.add(replies.reset(LONG))
    with Bench(fake) as bench:
        unit = bench.accept(chat(stream=True))
        bench.run()
        assert LONG.startswith("".join(bench.pieces[unit]))
        assert "broke off" in bench.results[unit]["error"]
        assert "ask again" in bench.results[unit]["error"]
    assert fake.calls == 1


@BOTH
def test_an_endpoint_that_is_silent_is_given_up_in_time(fake: FakeOpenAI, stream: bool) -> None:
    fake.script.add(replies.hang(), times=None)
    result = failed(fake, chat(stream=stream, within_s=0.5), timeout_s=0.2)
    assert result["late"]
    assert "no answer within 0.2 s" in result["error"]
    assert "response.deadline_s" in result["error"]


def test_one_that_falls_silent_amid_a_stream_is_given_up(fake: FakeOpenAI) -> None:
    fake.script.add(replies.stall(LONG))
    with Bench(fake, timeout_s=0.3) as bench:
        unit = bench.accept(chat(stream=True))
        bench.run()
        assert bench.pieces[unit]
        assert (
            "no answer within 0.3 s (llm.timeout_s), when a part of it had been handed out"
            in bench.results[unit]["error"]
        )


def test_one_that_is_slow_but_not_silent_is_not(fake: FakeOpenAI) -> None:
    fake.script.add(replies.paced(0.1, replies.content("x" * 200)))
    with Bench(fake, timeout_s=0.5) as bench:  # of silence: the whole takes more than a second
        unit = bench.accept(chat(stream=True))
        bench.run()
        assert text_of(bench, unit) == "x" * 200


@BOTH
@pytest.mark.parametrize(
    ("code", "mend"),
    [(401, "llm.api_key"), (403, "llm.api_key"), (404, "llm.base_url"), (400, "response.prompt_tokens")],
)
def test_a_refusal_for_good_tells_what_to_do(fake: FakeOpenAI, code: int, mend: str, stream: bool) -> None:
    fake.script.add(replies.status(code), times=None)
    result = failed(fake, chat(stream=stream))
    assert not result["late"]
    assert f"status {code}" in result["error"]
    assert mend in result["error"]
    assert fake.calls == (len(WAYS) if code == 400 else 1)


def test_the_key_is_masked_where_the_endpoint_repeats_it() -> None:
    with FakeOpenAI(api_key="sk-another") as strict:
        assert "Incorrect API key provided: ***" in failed(strict, chat())["error"]


@pytest.mark.parametrize(
    "body",
    [b"<html>Welcome</html>", b'{"error": "the upstream is away"}', b"[]", b'{"choices": []}', b"", b"\xff\xfe"],
    ids=repr,
)
def test_what_is_no_answer_is_refused(fake: FakeOpenAI, body: bytes) -> None:
    fake.script.add(Reply(body=body))
    result = failed(fake, chat())
    assert "no answer to a chat" in result["error"]
    assert "llm.base_url" in result["error"]


@pytest.mark.parametrize(
    "body", [b"<html>Welcome</html>\n", b'{"error": "away"}\n', b"data: [1]\n\n", b"data: no\n"], ids=repr
)
def test_what_is_no_stream_is_refused(fake: FakeOpenAI, body: bytes) -> None:
    fake.script.add(Reply(body=body))
    assert "no answer to a chat" in failed(fake, chat(stream=True))["error"]


def test_an_error_told_in_a_stream_is_one(fake: FakeOpenAI) -> None:
    fake.script.add(Reply(body=b'data: {"error": {"message": "overloaded"}}\n\n'))
    with Bench(fake) as bench:
        unit = bench.accept(chat(stream=True))
        bench.run()
        assert text_of(bench, unit) == "You said: Which pet do I have?"
    assert fake.calls == 2


def test_a_stream_that_ends_without_saying_so_has_broken_off(fake: FakeOpenAI) -> None:
    event = {"choices": [{"index": 0, "delta": {"content": "You adop"}, "finish_reason": None}]}
    fake.script.add(Reply(body=f"data: {json.dumps(event)}\n\n".encode()))
    with Bench(fake) as bench:
        unit = bench.accept(chat(stream=True))
        bench.run()
        assert bench.pieces[unit] == ["You adop"]
        assert "broke off" in bench.results[unit]["error"]


@BOTH
def test_an_answer_without_end_is_cut_off(fake: FakeOpenAI, stream: bool) -> None:
    fake.script.add(replies.huge((1 << 20) + 100_000))
    with Bench(fake, timeout_s=PATIENCE_S) as bench:  # a busy machine takes seconds to make it
        result = bench.ask(chat(stream=stream))
    assert "longer than 1048576 bytes" in result["error"]


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (("max_tokens",), ("max_completion_tokens", "temperature")),
        (("max_tokens", "temperature"), ("max_completion_tokens",)),
        (("max_completion_tokens", "temperature"), ("max_tokens",)),
        (("max_tokens", "max_completion_tokens", "temperature"), ()),
    ],
    ids=str,
)
def test_how_an_answer_is_bounded_is_found_out_once(refused: tuple[str, ...], left: tuple[str, ...]) -> None:
    bounds = {"max_tokens", "max_completion_tokens", "temperature"}
    with FakeOpenAI(refused=refused) as picky, Bench(picky) as bench:
        for _ in range(3):
            assert bench.ask(chat())["text"]
        assert [bounds & set(request.body) for request in picky.requests][-3:] == [set(left)] * 3
        assert picky.calls - 3 == bench.meter.tallies["answer"].retries
        assert picky.answered == 3


def test_one_that_tells_no_usage_of_streams_is_asked_without(fake: FakeOpenAI) -> None:
    with FakeOpenAI(refused=["stream_options"]) as picky, Bench(picky) as bench:
        assert bench.ask(chat())["text"]
        for _ in range(2):
            unit = bench.accept(chat(stream=True))
            bench.run()
            assert text_of(bench, unit)
        assert picky.requests[-1].body.keys() == {"model", "messages", "stream", "max_tokens"}
        assert bench.meter.tallies["answer"].tokens_out > 0  # estimated


def test_it_overtakes_work_that_nobody_waits_for(fake: FakeOpenAI) -> None:
    fake.script.latency_s = 0.1
    with Bench(fake, max_in_flight=1) as bench:
        batches = [bench.accept(batch()) for _ in range(4)]
        bench.stage.step(bench)
        unit = bench.accept(chat())
        bench.run()
        assert set(bench.results) == {*batches, unit}
        assert [request.task for request in fake.requests][:3].count("") == 1
        assert bench.order[0] == unit
        assert fake.most_in_flight == 1


def test_the_hour_s_budget_makes_it_wait_and_then_it_says_so(fake: FakeOpenAI) -> None:
    with Bench(fake, max_calls_per_hour=1) as bench:
        assert bench.ask(chat())["text"]
        result = bench.ask(chat(within_s=0.2))
    assert result["late"]
    assert "llm.max_calls_per_hour" in result["error"]
    assert fake.calls == 1


def test_nobody_waits_for_a_pause_that_is_longer_than_the_deadline(fake: FakeOpenAI) -> None:
    fake.script.add(replies.status(429, retry_after=3600))
    with Bench(fake) as bench:
        result = bench.ask(chat(within_s=600.0))
        assert result["late"]
        assert "status 429" in result["error"]
        assert "the end of a pause" in bench.ask(chat(within_s=600.0))["error"]
    assert fake.calls == 1


def test_what_waits_for_its_turn_too_long_says_so(fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=1)
    with Bench(fake, max_in_flight=1, timeout_s=2.0) as bench:
        bench.accept(chat(within_s=1.0))
        late = bench.accept(chat(within_s=0.2))
        bench.run()
    assert "llm.max_in_flight" in bench.results[late]["error"]
    assert fake.calls == 1


@BOTH
def test_what_nobody_waits_for_any_more_is_cancelled(fake: FakeOpenAI, stream: bool) -> None:
    fake.script.add(replies.paced(0.02, replies.content(LONG * 100)) if stream else replies.slow(0.2), times=1)
    with Bench(fake) as bench:
        unit = bench.accept(chat(stream=stream))
        while not (bench.pieces if stream else fake.calls):
            bench.stage.step(bench)
        bench.stage.accept(unit, WITHDRAW, None)
        bench.run()
        assert "nobody waits" in bench.failures.pop(unit)
        fake.wait_until_idle()  # its connection is closed, and the answer goes no further
        assert bench.ask(chat())["text"]
        bench.stage.accept(unit, WITHDRAW, None)  # too late: that is nothing to anybody
        assert bench.ask(chat())["text"]


EVENT = {"choices": [{"index": 0, "delta": {"content": "Ré\n x"}, "finish_reason": None}]}
LAST = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


@given(st.lists(st.integers(1, 30), max_size=60), st.sampled_from(["\n", "\r\n"]))
def test_a_stream_reads_the_same_however_it_is_split(sizes: list[int], end: str) -> None:
    lines = [
        ": a comment",
        "event: message",
        *(f"data: {json.dumps(one, ensure_ascii=False)}" for one in (EVENT, EVENT)),
    ]
    lines += [f"data:{json.dumps(LAST)}", f"data: {json.dumps(USAGE)}", "data: [DONE]"]
    data, answer, text = (2 * end).join([*lines, ""]).encode(), StreamedAnswer(), ""
    for size in [*sizes, len(data)]:
        text += answer.feed(data[:size])
        data = data[size:]
    assert text == 2 * "Ré\n x"
    assert (answer.chars, answer.over, answer.ended) == (len(text), True, True)
    assert answer.usage == USAGE["usage"]
