"""Answers by the endpoint through the whole pipeline: real processes, the fake embedder and the fake endpoint."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import ClosedError, ConfigError, DeadlineError, InputError, Memoryos, MemoryPipeline, WorkerError
from mos_pipeline.metrics import prometheus
from mos_pipeline.service.client import RemoteMemory
from mos_pipeline.testing import FakeOpenAI, replies
from tests.cli.common import SETTINGS, environment, run, start
from tests.faults.common import PATIENCE_S, check_consistent, until
from tests.llm.bench import KEY
from tests.llm.test_llm_pipeline import opened
from tests.support import all_pages, page_text

BEAGLE = "I adopted a beagle named Rex."
QUESTION = "which beagle did I adopt?"
LONG = "You adopted a beagle named Rex, and he is three years old. " * 4


@pytest.fixture
def memory(tmp_path: Path, fake: FakeOpenAI) -> Iterator[MemoryPipeline]:
    with opened(tmp_path / "store", fake, llm__processes=1, retrieval__timeout_s=PATIENCE_S) as memory:
        memory.add("tom", BEAGLE, "Lovely! How old is he?")
        yield memory


def workers(memory: MemoryPipeline) -> list[int]:
    """Return the pids of the LLM pool, once they are ready."""
    until(lambda: memory.stats().workers["llm"].state == "ready", "the LLM pool is ready")
    return list(memory.stats().workers["llm"].pids)


def kill(memory: MemoryPipeline) -> None:
    for pid in workers(memory):
        os.kill(pid, signal.SIGKILL)


def asked_more_often(fake: FakeOpenAI, calls: int) -> bool:
    return sum(not request.task for request in fake.requests) > calls


def test_the_endpoint_answers_from_what_memory_tells(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    fake.script.add(replies.thinking("A dog."), task="")
    answer = memory.respond("tom", QUESTION, style_hint="like a pirate")
    assert answer.text.startswith("You said: ")
    assert "A dog." not in answer.text
    assert (answer.provider, answer.complete, answer.prompt_version) == ("openai", True, 1)
    (request,) = fake.requests
    shown = json.dumps(request.messages)
    assert BEAGLE in shown and QUESTION in shown and "like a pirate" in shown
    assert (request.body["temperature"], request.body["max_tokens"]) == (0.7, 1500)
    page = all_pages(memory, "tom")[-1]
    assert (page.page_id, page.user_input, page.agent_response) == (answer.page_id, QUESTION, answer.text)
    assert page.metadata == {}
    told = memory.stats()
    assert set(told.tasks) == {"answer"}
    assert (told.tasks["answer"].calls, told.tasks["answer"].tokens_out) == (1, fake.tokens_out)
    assert 'llm_calls_total{store="' in prometheus(told)
    assert 'task="answer"} 1' in prometheus(told)


ASKS = """
import sys
from mos_pipeline import MemoryPipeline

with MemoryPipeline.open(
    sys.argv[1], embedding__backend="fake", llm__processes=1, llm__provider="openai", llm__base_url=sys.argv[2]
) as memory:
    answer = memory.respond("tom", "which beagle did I adopt?").text
    streamed = "".join(memory.respond_stream("tom", "which beagle did I adopt?"))
print(answer[:9], streamed[:9], "openai" in sys.modules)
"""


def test_the_caller_s_process_loads_no_client(tmp_path: Path, fake: FakeOpenAI) -> None:
    command = [sys.executable, "-c", ASKS, str(tmp_path), fake.base_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment(), check=True)
    assert done.stdout == "You said: You said: False\n"


def test_pieces_come_before_the_answer_is_whole_and_thoughts_never(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    thought = "<think>" + "whatever " * 20 + "</think>"
    fake.script.add(replies.paced(0.05, replies.content(thought + LONG)), task="")
    with memory.respond_stream("tom", QUESTION) as stream:
        pieces = [next(stream)]
        assert fake.answered == 0
        assert stream.response is None
        pieces += stream
    assert len(pieces) > 5
    assert "".join(pieces) == LONG.strip()
    assert stream.response is not None
    assert all_pages(memory, "tom")[-1].agent_response == stream.response.text == LONG.strip()


def test_the_worker_killed_amid_a_call_is_another_s_call(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=1, task="")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(memory.respond, "tom", QUESTION)
        fake.wait_for_calls(1)
        kill(memory)
        assert answer.result(PATIENCE_S).text.startswith("You said: ")
    assert [page.user_input for page in all_pages(memory, "tom")] == [BEAGLE, QUESTION]
    assert memory.stats().workers["llm"].restarts == 1
    assert not memory.stats().set_aside


def test_the_worker_killed_before_the_first_piece_is_another_s_stream(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=1, task="")
    with ThreadPoolExecutor(1) as pool:
        pieces = pool.submit(list, memory.respond_stream("tom", QUESTION))
        fake.wait_for_calls(1)
        kill(memory)
        assert "".join(pieces.result(PATIENCE_S)).startswith("You said: ")


def test_the_worker_killed_amid_a_stream_ends_it_and_nothing_is_added(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    fake.script.add(replies.stall(LONG), times=1, task="")
    stream = memory.respond_stream("tom", QUESTION)
    assert LONG.startswith(next(stream))
    kill(memory)
    with pytest.raises(
        WorkerError, match=r"died \(signal 9\) when a part of the answer had been handed out; nothing was"
    ):
        list(stream)
    assert stream.response is None
    assert len(all_pages(memory)) == 1
    assert memory.respond("tom", QUESTION).text
    assert not memory.stats().set_aside


def test_a_question_that_kills_every_worker_is_given_up_and_no_page_set_aside(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=None, task="")
    with opened(tmp_path, fake, llm__processes=1, short_term__capacity=3) as memory:
        ids = [memory.add("tom", *page_text(number)) for number in range(3)]
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(memory.respond, "tom", QUESTION)
            for calls in range(3):
                until(partial(asked_more_often, fake, calls), "it is asked again")
                kill(memory)
            with pytest.raises(WorkerError, match="died over this question again and again, last by signal 9"):
                answer.result(PATIENCE_S)
        memory.wait_idle(PATIENCE_S)
        assert [page.page_id for page in all_pages(memory)] == ids
        assert not memory.stats().set_aside
        check_consistent(memory)


def test_a_stream_that_is_closed_is_given_up_and_what_was_seen_is_kept(
    memory: MemoryPipeline, fake: FakeOpenAI
) -> None:
    fake.script.add(replies.paced(0.02, replies.content(LONG * 100)), times=1, task="")
    with memory.respond_stream("tom", QUESTION) as stream:
        seen = next(stream) + next(stream)
    assert stream.response is not None
    assert (stream.response.text, stream.response.complete) == (seen.rstrip(), False)
    fake.wait_until_idle()  # the call is cancelled: nobody pays for the rest
    assert fake.answered == 0
    assert [page.agent_response for page in all_pages(memory)][1:] == [seen.rstrip()]
    until(lambda: not memory.stats().workers["llm"].waiting, "the unit is out of the ledger")


def test_a_stream_that_is_only_dropped_is_given_up_too(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    fake.script.add(replies.paced(0.02, replies.content(LONG * 100)), times=1, task="")
    stream = memory.respond_stream("tom", QUESTION)
    next(stream)
    del stream
    gc.collect()
    fake.wait_until_idle()
    assert fake.answered == 0
    assert len(all_pages(memory)) == 1


FAULTS: dict[str, tuple[Any, dict[str, Any], Any, str]] = {
    "no such key": (replies.status(401), {}, WorkerError, "status 401.*llm.api_key"),
    "no such model": (replies.status(404), {}, WorkerError, "status 404.*llm.model"),
    "silent": (replies.hang(), {"response__deadline_s": 0.5}, DeadlineError, "response.deadline_s"),
    "busy": (replies.status(429), {"response__deadline_s": 0.5}, DeadlineError, "status 429"),
    "empty": (replies.empty(), {}, WorkerError, "answered nothing"),
    "thoughts alone": (replies.content("<think>Hm."), {}, WorkerError, "response.answer_tokens"),
    "broken off": (replies.reset(LONG), {"response__deadline_s": 0.5}, (WorkerError, DeadlineError), "broke off"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_there_is_no_answer_it_is_told_and_nothing_added(tmp_path: Path, fault: str, fake: FakeOpenAI) -> None:
    reply, settings, kind, words = FAULTS[fault]
    with opened(tmp_path, fake, llm__processes=1, **settings) as memory:
        memory.add("tom", BEAGLE, "Lovely!")
        workers(memory)
        fake.script.add(reply, times=None, task="")
        with pytest.raises(kind, match=words) as plain:
            memory.respond("tom", QUESTION)
        stream = memory.respond_stream("tom", QUESTION)
        with pytest.raises(kind, match=words), stream:
            list(stream)
        assert stream.response is None
        assert KEY not in str(plain.value)
        assert len(all_pages(memory)) == 1
        fake.script.clear()
        assert memory.respond("tom", QUESTION).text


def test_an_endpoint_that_is_away_is_told_and_an_answer_is_had_when_it_is_back(
    tmp_path: Path, fake: FakeOpenAI
) -> None:
    with opened(tmp_path, fake, llm__processes=1, response__deadline_s=1.0) as memory:
        workers(memory)
        fake.down()
        with pytest.raises(DeadlineError, match="no connection"):
            memory.respond("tom", QUESTION)
        fake.up()
        assert memory.respond("tom", QUESTION).text


def test_many_ask_while_batches_are_worked_off_and_pages_added(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.latency_s = 0.05
    with opened(tmp_path, fake, llm__max_in_flight=4, llm__processes=2, retrieval__timeout_s=PATIENCE_S) as memory:
        ids = [memory.add("bulk", *page_text(number)) for number in range(180)]
        with ThreadPoolExecutor(24) as pool:
            asked = [pool.submit(memory.respond, f"user{at}", f"question {at}?") for at in range(48)]
            ids += [memory.add("bulk", *page_text(number)) for number in range(180, 220)]
            answers = [one.result(PATIENCE_S) for one in asked]
        under_way = memory.stats().workers["llm"].waiting
        assert all(f"question {at}?" in answer.text for at, answer in enumerate(answers))
        assert under_way, "batches are still under way: whoever waits came before them"
        for at, answer in enumerate(answers):
            (page,) = all_pages(memory, f"user{at}")
            assert (page.page_id, page.agent_response) == (answer.page_id, answer.text)
        memory.wait_idle(PATIENCE_S)
        assert [page.page_id for page in all_pages(memory, "bulk")] == ids
        check_consistent(memory)
        assert fake.most_in_flight <= 8
        assert memory.stats().tasks["answer"].calls == 48


def test_pages_are_accepted_and_found_while_nobody_answers(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=None)
    settings: dict[str, Any] = {"llm__max_in_flight": 2, "llm__processes": 2, "short_term__capacity": 3}
    memory = opened(tmp_path, fake, retrieval__timeout_s=PATIENCE_S, **settings)
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(memory.respond, "tom", f"question {at}?") for at in range(12)]
        fake.wait_for_calls(4)
        ids = [memory.add("ann", *page_text(number)) for number in range(30)]
        found = memory.retrieve("ann", "number17", k=3)
        assert ids[17] in [hit.page.page_id for hit in found.pages]
        assert [page.page_id for page in all_pages(memory, "ann")] == ids
        assert not any(one.done() for one in asked)
        memory.close()
        assert all(isinstance(one.exception(PATIENCE_S), ClosedError) for one in asked)
    with opened(tmp_path, fake, workers=False) as memory:
        assert [page.page_id for page in all_pages(memory)] == ids


def test_closing_ends_the_wait(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.hang(), times=None, task="")
    memory = opened(tmp_path, fake, llm__processes=1)
    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[Any]] = [
            pool.submit(memory.respond, "tom", QUESTION),
            pool.submit(list, memory.respond_stream("tom", QUESTION)),
        ]
        fake.wait_for_calls(2)
        memory.close()
        for one in waiting:
            with pytest.raises(ClosedError, match="closed before the answer was whole"):
                one.result(PATIENCE_S)


def test_a_stream_read_after_the_end_says_so(memory: MemoryPipeline) -> None:
    stream = memory.respond_stream("tom", QUESTION)
    memory.close()
    with pytest.raises(ClosedError):
        next(stream)


def test_without_a_key_or_workers_it_says_what_to_do(
    tmp_path: Path, fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with opened(tmp_path, fake, llm__api_key="", llm__base_url="") as memory:
        with pytest.raises(ConfigError, match=r"^llm.provider is openai, but there is no key: set llm.api_key"):
            memory.respond("tom", QUESTION)
        assert memory.respond("tom", QUESTION, model=lambda *_: "Rex.").text == "Rex."
    with opened(tmp_path, fake, workers=False, retrieval__timeout_s=0.1) as memory:
        with pytest.raises(InputError, match="workers=False"):
            memory.respond("tom", QUESTION)
        assert len(all_pages(memory)) == 1
    assert fake.calls == 0


def test_a_reader_has_answers_by_a_process_of_its_own(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    memory.flush(timeout=PATIENCE_S)
    path, config = memory._engine.store.folder.root, memory._engine.config
    with MemoryPipeline.open(path, config=config, read_only=True) as reader:
        assert reader.stats().tasks == {}
        answer = reader.respond("tom", QUESTION, remember=False)
        assert (answer.provider, answer.page_id) == ("openai", None)
        assert "".join(reader.respond_stream("tom", QUESTION, remember=False)).startswith("You said: ")
        told = reader.stats()
        assert told.tasks["answer"].calls == 2
        assert len(told.workers["llm"].pids) == 1
        with pytest.raises(InputError, match="read-only"):
            reader.respond("tom", QUESTION)
    with MemoryPipeline.open(path, config=config, read_only=True, workers=False) as reader:
        with pytest.raises(InputError, match="workers=False"):
            reader.respond("tom", QUESTION, remember=False)
        assert reader.respond("tom", QUESTION, remember=False, model=lambda *_: "Rex.").text == "Rex."
    assert fake.calls == 2
    assert len(all_pages(memory)) == 1


def test_beside_the_owner_its_endpoint_answers(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    with RemoteMemory(memory._engine.store.folder.root) as remote:
        answer = remote.respond("tom", QUESTION)
        assert answer.provider == "openai"
        assert all_pages(memory)[-1].page_id == answer.page_id
        fake.script.add(replies.paced(0.05, replies.content(LONG)), times=1, task="")
        with remote.respond_stream("tom", QUESTION) as stream:
            assert LONG.startswith(next(stream))
            assert fake.answered == 1
            assert len(list(stream)) > 1
        assert all_pages(memory)[-1].agent_response == LONG.strip()
        fake.script.add(replies.status(401), task="")
        with pytest.raises(WorkerError, match="status 401"):
            remote.respond("tom", QUESTION)


def test_the_command_line_s_answers_are_the_endpoint_s(tmp_path: Path, fake: FakeOpenAI) -> None:
    settings = {
        "MOS_PIPELINE_LLM__PROVIDER": "openai",
        "MOS_PIPELINE_LLM__BASE_URL": fake.base_url,
        "MOS_PIPELINE_LLM__API_KEY": KEY,
    }
    fake.script.add(replies.content("You adopted Rex."), task="")
    fake.script.add(replies.status(401), task="")
    question = ("respond", QUESTION, "--store", tmp_path / "store", "--user", "tom")
    done = run(*question, settings=settings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "You adopted Rex.\n", "")
    failed = run(*question, settings=settings)
    assert failed.returncode == 5
    assert "status 401" in failed.stderr
    assert KEY not in failed.stderr
    assert fake.requests[0].body["stream"] is True


def test_a_signal_amid_an_answer_keeps_what_was_shown(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.stall(LONG), task="")
    settings = {**SETTINGS, "MOS_PIPELINE_LLM__PROVIDER": "openai", "MOS_PIPELINE_LLM__BASE_URL": fake.base_url}
    talk = start("respond", QUESTION, "--store", tmp_path / "store", "--user", "tom", settings=settings)
    try:
        assert talk.stdout is not None
        shown = os.read(talk.stdout.fileno(), 1 << 16).decode()
        talk.send_signal(signal.SIGINT)
        out, err = talk.communicate(timeout=PATIENCE_S)
    finally:
        talk.kill()
    assert (talk.returncode, err) == (128 + signal.SIGINT, "interrupted\n")
    with opened(tmp_path / "store", fake, workers=False) as memory:
        (page,) = all_pages(memory)
    assert shown and LONG.startswith(shown + out)
    assert page.agent_response == (shown + out).rstrip()


def test_get_response_is_the_endpoint_s(tmp_path: Path, fake: FakeOpenAI) -> None:
    more = {"embedding.backend": "fake", "llm.processes": 1}
    with Memoryos("tom", KEY, tmp_path / "memory", fake.base_url, llm_model="some-model", config=more) as memo:
        memo.add_memory(BEAGLE, "Lovely!")
        fake.script.add(replies.thinking(), task="")
        answer = memo.get_response(QUESTION)
        assert answer.startswith("You said: ")
        assert memo.short_term_memory.get_all()[-1]["agent_response"] == answer
    assert fake.requests[0].body["model"] == "some-model"
    assert BEAGLE in json.dumps(fake.requests[0].messages)


def test_the_key_is_in_no_log_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeOpenAI(api_key="sk-another") as strict, opened(tmp_path, strict, llm__processes=1) as memory:
        for ask in (memory.respond, lambda *args: list(memory.respond_stream(*args))):
            with pytest.raises(WorkerError) as failed:
                ask("tom", QUESTION)
            assert KEY not in str(failed.value)
            assert "Incorrect API key provided: ***" in str(failed.value)
        assert KEY not in repr(memory.stats())
    assert KEY not in caplog.text


def test_an_answer_waits_behind_no_thread_that_is_busy_elsewhere(memory: MemoryPipeline, fake: FakeOpenAI) -> None:
    with memory._engine.coordinator.lock, ThreadPoolExecutor(1) as pool:  # as in a long turn of the coordinator's
        pieces = memory._engine.chat.pieces([{"role": "user", "content": "hello"}], 0.0, 5, stream=True)
        assert pool.submit(lambda: "".join(pieces)).result(PATIENCE_S) == "You said: hello"
