"""The whole pipeline with real processes, the fake embedder and the fake endpoint."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.cli import main
from mos_pipeline.config import load_config
from mos_pipeline.errors import WorkerError
from mos_pipeline.metrics import prometheus
from mos_pipeline.testing import FakeOpenAI, Reply, replies
from tests.faults.common import PATIENCE_S, check_consistent, check_order, until
from tests.llm.bench import KEY
from tests.support import open_fake, page_text
from tests.test_metrics import check_agree

USERS = ("tom", "ann", "lea")
PAGES = 18  # of each: two batches


def opened(path: Path, fake: FakeOpenAI, **settings: Any) -> MemoryPipeline:
    wanted = {
        "llm__provider": "openai",
        "llm__base_url": fake.base_url,
        "llm__api_key": KEY,
        "long_term__promotion_pages": 9,
        **settings,
    }
    return open_fake(path, **wanted)


def added(
    memory: MemoryPipeline, count: int = PAGES, begin: int = 0, users: Sequence[str] = USERS
) -> dict[str, list[str]]:
    """Add pages of all users, and return their ids."""
    ids = dict[str, list[str]]()
    for number in range(begin, begin + count):
        for at, user in enumerate(users):
            ids.setdefault(user, []).append(memory.add(user, *page_text(1000 * at + number)))
    return ids


def texts_of(memory: MemoryPipeline, user: str) -> Iterator[str]:
    """Yield all that was derived from a user's pages."""
    yield from (session.summary for session in memory.sessions(user))
    yield from (fact.text for fact in memory.knowledge(user))
    yield memory.profile(user).text
    yield from (hit.overview for hit in memory.retrieve(user, "number", k=PAGES, timeout=PATIENCE_S).pages)


def check_whole(memory: MemoryPipeline, ids: dict[str, list[str]]) -> None:
    memory.wait_idle(PATIENCE_S)
    check_order(memory, ids)
    check_consistent(memory)
    assert not memory.stats().set_aside
    assert all(worker.error is None for worker in memory.stats().workers.values())


def restarted(memory: MemoryPipeline, before: int) -> bool:
    return memory.stats().workers["llm"].restarts > before


def fallbacks(memory: MemoryPipeline) -> int:
    return sum(task.fallbacks for task in memory.stats().tasks.values())


def test_topics_profile_and_knowledge_come_from_the_endpoint(
    tmp_path: Path, fake: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path, fake) as memory:
        check_whole(memory, added(memory))
        for at, user in enumerate(USERS):
            said = {page_text(1000 * at + number)[0][:100].strip() for number in range(PAGES)}
            sessions = memory.sessions(user)
            assert all(session.summary.startswith("They spoke of this: ") for session in sessions)
            assert all(line.partition(", said ")[2].strip() in said for line in memory.profile(user).text.splitlines())
            assert memory.profile(user).text.startswith("- interest in this: High, said number")
            facts = {fact.text for fact in memory.knowledge(user)}
            assert facts
            assert all(fact.removeprefix("The user said: ") in said for fact in facts)
            (hit,) = memory.retrieve(user, page_text(1000 * at)[0], k=1, timeout=PATIENCE_S).pages
            assert "Then: " in hit.overview
        profile = memory.profile("tom")
        stats = memory.stats()
        assert set(stats.tasks) == {"continuity", "topics", "profile", "knowledge"}
        assert sum(task.calls for task in stats.tasks.values()) == fake.calls
        assert sum(task.tokens_in for task in stats.tasks.values()) == fake.tokens_in
        assert sum(task.tokens_out for task in stats.tasks.values()) == fake.tokens_out
        assert fallbacks(memory) == 0
        check_agree(prometheus(stats), stats)
        assert main(["stats", "--store", str(tmp_path)]) == 0  # asks the owner: this process
        told = capsys.readouterr().out
        for name, task in stats.tasks.items():
            assert f"llm {name}" in told
            assert f"{task.calls} calls, {task.tokens_in:,} + {task.tokens_out:,} tokens" in told
    with opened(tmp_path, fake) as memory:  # what was derived is in the store
        until(lambda: memory.stats().restored, "everything is read")
        assert memory.profile("tom") == profile
        assert not memory.stats().tasks


def test_every_fault_at_once_costs_no_page_and_no_error_becomes_memory(tmp_path: Path, fake: FakeOpenAI) -> None:
    faults = [
        replies.status(500),
        replies.status(429),
        replies.status(429, retry_after=0.2),
        replies.reset(),
        replies.empty(),
        replies.content("Error: Could not get response from LLM."),
        replies.truncated(),
        replies.wrong_types(),
        replies.wrong_language(),
        replies.huge(),
        replies.invalid_utf8(),
        replies.hang(),
        replies.slow(0.3),
        replies.thinking("Error: not for memory"),
        Reply(body=b'{"error": "Error: upstream"}'),
    ]
    random.Random(1).shuffle(faults)
    for fault in faults:
        fake.script.add(fault)
        fake.script.add(replies.sensible())
    with opened(tmp_path, fake, llm__timeout_s=2.0, llm__bulk_tokens=0) as memory:  # so that there are calls for all
        check_whole(memory, added(memory))
        for user in USERS:
            assert not [text for text in texts_of(memory, user) if "Error" in text or "用" in text or "xxxx" in text]
        tasks = memory.stats().tasks.values()
        assert sum(task.retries for task in tasks) >= 5
        assert sum(task.repairs for task in tasks) >= 5


def test_an_endpoint_that_refuses_leaves_the_extractive_memory(
    tmp_path: Path, fake: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake) as memory:
        check_whole(memory, added(memory))
        assert memory.sessions("tom")
        assert not [text for text in texts_of(memory, "tom") if "script says" in text]
        assert fallbacks(memory) >= 12
    assert [record.message for record in caplog.records if getattr(record, "event", "") == "llm-unanswered"]


def test_without_a_key_it_is_said_what_to_set_and_pages_are_kept(
    tmp_path: Path, fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with opened(tmp_path, fake, llm__base_url="", llm__api_key="") as memory:
        ids = added(memory, 9)
        with pytest.raises(WorkerError, match=r"there is no key: set llm\.api_key"):
            memory.wait_idle(PATIENCE_S)
        check_order(memory, ids)
        assert memory.retrieve("tom", page_text(3)[0], k=1).pages[0].page.page_id == ids["tom"][3]
    with opened(tmp_path, fake) as memory:
        check_whole(memory, ids)
        assert memory.sessions("tom")


def test_a_worker_killed_in_mid_call_costs_nothing(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.latency_s = 0.3
    with opened(tmp_path, fake, llm__processes=2) as memory:
        ids = added(memory)
        for calls in (2, 6):
            fake.wait_for_calls(calls)
            until(lambda: fake.in_flight, "a call is in flight", pause_s=0.002)
            before = memory.stats().workers["llm"]
            os.kill(before.pids[-1], signal.SIGKILL)
            until(partial(restarted, memory, before.restarts), "its death was noticed")
        check_whole(memory, ids)
        assert fallbacks(memory) == 0
        assert all(session.summary.startswith("They spoke") for user in USERS for session in memory.sessions(user))


def test_add_and_search_go_on_while_the_endpoint_hangs_and_close_does_not_wait(
    tmp_path: Path, fake: FakeOpenAI
) -> None:
    fake.script.add(replies.hang(), times=None)
    with opened(tmp_path, fake, llm__max_in_flight=2, llm__processes=2) as memory:
        ids = added(memory, 40)
        fake.wait_for_calls(4)
        until(lambda: not memory.stats().backlog_pages or fake.in_flight == 4, "the calls hang")
        more = added(memory, 5, begin=40)
        (hit,) = memory.retrieve("ann", page_text(1044)[0].split()[0], k=1).pages
        assert hit.page.page_id == more["ann"][-1]
        assert fake.most_in_flight <= 4
        assert not memory.sessions("tom")
    for user, new in more.items():
        ids[user] += new
    fake.script.clear()
    with opened(tmp_path, fake) as memory:
        check_whole(memory, ids)
        assert fallbacks(memory) == 0
        assert len(memory.sessions("tom")) > 0


def test_an_endpoint_that_dies_and_comes_back_is_waited_for(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake) as memory:
        ids = added(memory)
        fake.wait_for_calls(2)
        fake.down()
        more = added(memory, 9, begin=PAGES)
        until(lambda: sum(task.retries for task in memory.stats().tasks.values()) >= 3, "it is tried again")
        calls = fake.calls
        fake.up()
        for user, new in more.items():
            ids[user] += new
        check_whole(memory, ids)
        assert fake.calls > calls
        assert fallbacks(memory) == 0


def test_beyond_the_hours_budget_pages_wait_and_stay(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake, llm__max_calls_per_hour=4, llm__processes=1) as memory:
        ids = added(memory)
        until(lambda: fake.answered == 4, "the budget is used up")
        until(lambda: memory.stats().vectors >= 3 * PAGES, "the pages are embedded all the same")
        check_order(memory, ids)
        assert fake.calls == 4
    with opened(tmp_path, fake) as memory:
        check_whole(memory, ids)
        assert fallbacks(memory) == 0


def test_a_worker_that_takes_a_dead_ones_place_knows_what_that_has_spent(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake, llm__max_calls_per_hour=4, llm__processes=1) as memory:
        ids = added(memory)
        until(
            lambda: sum(task.calls for task in memory.stats().tasks.values()) == 4, "the worker has told of its calls"
        )
        for _ in range(2):
            before = memory.stats().workers["llm"]
            os.kill(before.pids[0], signal.SIGKILL)
            until(partial(restarted, memory, before.restarts), "its death was noticed")
            until(lambda: memory.stats().workers["llm"].state == "ready", "another one is there")
        time.sleep(0.5)  # it would begin at once
        assert fake.calls == 4
        check_order(memory, ids)


def test_the_key_is_nowhere_to_be_read(
    tmp_path: Path, fake: FakeOpenAI, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    fake._api_key = "another"  # so that the server's error repeats the one it got
    with caplog.at_level(logging.DEBUG), opened(tmp_path / "store", fake) as memory:
        added(memory, 9)
        memory.wait_idle(PATIENCE_S)
        settings = memory._engine.config
        shown = [repr(memory), repr(memory._engine.config), str(settings.as_dict()), str(memory.stats()), caplog.text]
        assert main(["stats", "--store", str(tmp_path / "store"), "--json"]) == 0
        shown.append(capsys.readouterr().out)
        assert "***" in caplog.text
    assert not [text for text in shown if KEY in text]
    for path in (tmp_path / "store").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
    assert load_config(settings.as_dict(secrets=True)) == settings
    assert settings.as_dict()["llm"]["api_key"] == "***"
