"""The fake server by its own: as its users see it, through the openai client and over bare HTTP."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from mos_pipeline.testing import FakeOpenAI, Reply, replies

if TYPE_CHECKING:  # each process that runs tests collects this file, and most run none of these
    import openai

HELLO = {"model": "any", "messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
def client(fake: FakeOpenAI) -> Iterator[openai.OpenAI]:
    import openai

    with openai.OpenAI(base_url=fake.base_url, api_key="sk", max_retries=0, timeout=20.0) as made:
        yield made


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{**HELLO, **more})


def posted(fake: FakeOpenAI, body: bytes, path: str = "/v1/chat/completions", method: str = "POST") -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(fake.base_url).netloc, timeout=20.0)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_it_answers_counts_and_remembers(fake: FakeOpenAI, client: openai.OpenAI) -> None:
    answer = ask(client)
    assert answer.choices[0].message.content == "You said: hello there"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 5)
    assert answer.model == "any"
    assert (fake.calls, fake.answered, fake.tokens_in, fake.tokens_out) == (1, 1, 2, 5)
    (request,) = fake.requests
    assert request.number == 1
    assert request.body == HELLO
    assert request.headers["authorization"] == "Bearer sk"
    assert (request.task, request.asked) == ("", {})
    assert [model.id for model in client.models.list()] == ["fake"]
    assert fake.calls == 1


def test_it_streams(fake: FakeOpenAI, client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: hello there"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 7
    fake.script.add(replies.reset())
    with pytest.raises(Exception, match=r"(?i)reset|closed|disconnected|incomplete|connection"):
        list(ask(client, stream=True))


def test_rules_hold_so_many_times_for_their_task_and_in_their_order(fake: FakeOpenAI, client: openai.OpenAI) -> None:
    fake.script.add(replies.content("topics"), task="topics", times=None)
    fake.script.add(replies.content("first"))
    fake.script.add(replies.content("then"), times=2)
    topics = [{"role": "user", "content": json.dumps({"task": "topics"})}]
    found = [ask(client, messages=messages).choices[0].message.content for messages in [HELLO["messages"], topics] * 4]
    assert found[1::2] == ["topics"] * 4
    assert found[::2] == ["first", "then", "then", "You said: hello there"]
    fake.script.clear()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (replies.status(429, retry_after=3), "RateLimitError"),
        (replies.status(500), "InternalServerError"),
        (replies.reset(), "APIConnectionError"),
        (replies.invalid_utf8(), ""),
    ],
)
def test_faults_are_what_the_client_takes_them_for(
    fake: FakeOpenAI, client: openai.OpenAI, reply: Reply, error: str
) -> None:
    import openai

    fake.script.add(reply)
    with pytest.raises(getattr(openai, error) if error else Exception) as found:
        ask(client)
    if isinstance(found.value, openai.RateLimitError):
        assert found.value.response.headers["retry-after"] == "3"
    assert fake.answered == (reply.body is not None)
    assert ask(client).choices[0].message.content == "You said: hello there"


def test_a_call_that_hangs_is_in_flight_until_its_client_leaves(fake: FakeOpenAI, client: openai.OpenAI) -> None:
    import openai

    fake.script.add(replies.hang())
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.2)
    assert fake.calls == 1
    fake.down()
    assert fake.in_flight == 0


def test_calls_at_the_same_time_are_counted(fake: FakeOpenAI, client: openai.OpenAI) -> None:
    fake.script.latency_s = 0.3
    threads = [threading.Thread(target=ask, args=(client,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    fake.wait_for_calls(5)
    assert fake.in_flight == 5
    for thread in threads:
        thread.join()
    assert (fake.in_flight, fake.most_in_flight, fake.answered) == (0, 5, 5)
    assert [request.in_flight for request in fake.requests] == [1, 2, 3, 4, 5]


def test_it_dies_and_comes_back_at_the_same_address(fake: FakeOpenAI, client: openai.OpenAI) -> None:
    import openai

    address = fake.base_url
    ask(client)
    fake.down()
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    fake.up()
    assert fake.base_url == address
    assert ask(client).choices


def test_what_is_no_request_is_refused(fake: FakeOpenAI) -> None:
    assert posted(fake, b"no json")[0] == 400
    assert posted(fake, b'{"model": "m", "messages": []}')[0] == 400
    assert posted(fake, json.dumps(HELLO | {"model": 3}).encode())[0] == 400
    assert posted(fake, b"", "/v1/embeddings")[0] == 404
    assert posted(fake, b"", "/v1/models", "GET")[0] == 200
    assert fake.calls == 0


def test_key_and_format_are_checked_where_told_to() -> None:
    import openai

    with FakeOpenAI(api_key="right", formats=("text",)) as fake:
        for key, error in (("wrong", openai.AuthenticationError), ("right", openai.BadRequestError)):
            with openai.OpenAI(base_url=fake.base_url, api_key=key, max_retries=0) as client, pytest.raises(error):
                ask(client, response_format={"type": "json_object"})


def test_waiting_for_calls_that_do_not_come_ends(fake: FakeOpenAI) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 calls"):
        fake.wait_for_calls(1, timeout=0.01)


def test_it_runs_in_a_process_of_its_own() -> None:
    import openai

    command = [sys.executable, "-m", "mos_pipeline.testing", "--latency", "0.01"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with openai.OpenAI(base_url=process.stdout.readline().strip(), api_key="sk", max_retries=0) as client:
            assert ask(client).choices[0].message.content == "You said: hello there"
        process.stdin.close()
        assert process.wait(timeout=20.0) == 0


def test_the_tests_clock_is_the_servers(fake: FakeOpenAI, client: openai.OpenAI) -> None:
    before = time.monotonic()
    ask(client)
    assert before <= fake.requests[0].at <= time.monotonic()
