"""Few calls: what comes many at a time waits for one another, what comes by itself waits for nobody."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from mos_pipeline.cli import main
from mos_pipeline.messages import SourceMark
from mos_pipeline.testing import FakeOpenAI, Request, replies
from tests.faults.common import PATIENCE_S, check_consistent, check_order, until
from tests.llm.bench import KEY
from tests.support import all_pages, open_fake, page_text

CAPACITY = 9
TASKS = ("continuity", "topics")


def settings_of(fake: FakeOpenAI, **settings: Any) -> dict[str, Any]:
    """Settings by which nothing goes for its time, unless others are named."""
    wanted = {"llm__provider": "openai", "llm__base_url": fake.base_url, "llm__api_key": KEY, "llm__bulk_wait_s": 600.0}
    return {**wanted, **settings}


def opened(path: Path, fake: FakeOpenAI, **settings: Any) -> MemoryPipeline:
    return open_fake(path, **settings_of(fake, **settings))


def pages(user: str, count: int, begin: int = 0) -> list[dict[str, Any]]:
    """Return pages for ``add_batch``."""
    texts = [page_text(number) for number in range(begin, begin + count)]
    return [{"user_id": user, "user_input": said, "agent_response": answered} for said, answered in texts]


def loaded(memory: MemoryPipeline, user: str, count: int, begin: int = 0) -> list[str]:
    """Add pages in bulk, and return their ids."""
    return [str(added.page_id) for added in memory.add_batch(pages(user, count, begin))]


def talked(memory: MemoryPipeline, user: str, count: int, begin: int = 0) -> list[str]:
    """Add pages one by one, and return their ids."""
    return [memory.add(user, *page_text(number)) for number in range(begin, begin + count)]


def asked(fake: FakeOpenAI, task: str) -> list[Request]:
    return [request for request in fake.requests if request.task == task]


def said(requests: Sequence[Request]) -> list[list[str]]:
    """Return what the user said on the pages of each request."""
    return [[page["user"] for page in request.asked["pages"]] for request in requests]


def texts(count: int, begin: int = 0) -> list[str]:
    return [page_text(number)[0] for number in range(begin, begin + count)]


def waiting(memory: MemoryPipeline, count: int) -> None:
    """Wait until so many pages are embedded and in no session."""
    until(lambda: (memory.stats().backlog_pages, memory.stats().waiting_pages) == (0, count), f"{count} pages wait")


def in_sessions(memory: MemoryPipeline, user: str) -> list[str]:
    return sorted(page for session in memory.sessions(user) for page in session.page_ids)


def check_whole(memory: MemoryPipeline, ids: dict[str, list[str]]) -> None:
    """Check that every page of full batches is in one session, and nothing is lost."""
    check_order(memory, ids)
    check_consistent(memory)
    for user, mine in ids.items():
        assert in_sessions(memory, user) == sorted(mine)


def packed(count: int, budget: int) -> list[list[str]]:
    """Return what numbered pages' users said, in units of as many full batches as the budget holds."""
    units, left = list[list[str]](), 0
    for begin in range(0, count, CAPACITY):
        batch = [page_text(number) for number in range(begin, begin + CAPACITY)]
        cost = sum(-(-len(side) // 4) for page in batch for side in page)
        if cost > left:
            units.append([])
            left = budget
        units[-1] += [said for said, _ in batch]
        left -= cost
    return units


def test_a_bulk_load_waits_for_the_budget_and_the_rest_for_wait_idle(tmp_path: Path, fake: FakeOpenAI) -> None:
    count, budget = 90, 900
    expected = packed(count, budget)
    assert 3 < len(expected) < 9
    with opened(tmp_path, fake, llm__bulk_tokens=budget) as memory:
        ids = loaded(memory, "tom", count)
        waiting(memory, len(expected[-1]))
        assert said(asked(fake, "topics")) == expected[:-1]
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().waiting_pages == 0
        check_whole(memory, {"tom": ids})
    for task in TASKS:
        assert said(asked(fake, task)) == expected
    # Each goes on where the one before has ended.
    starts = [request.asked["before"] for request in asked(fake, "continuity")]
    assert starts[0] is None
    assert [start["user"] for start in starts[1:]] == [unit[-1] for unit in expected[:-1]]


def test_calls_for_a_page_are_few(tmp_path: Path, fake: FakeOpenAI) -> None:
    count = 252  # of some 40 tokens each
    with opened(tmp_path / "bulk", fake) as memory:
        ids = loaded(memory, "tom", count)
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, {"tom": ids})
    bulk = fake.calls
    assert bulk <= 0.04 * count
    with opened(tmp_path / "online", fake) as memory:
        for begin in range(0, count, CAPACITY):
            talked(memory, "tom", CAPACITY, begin)
            memory.wait_idle(PATIENCE_S)
        check_whole(memory, {"tom": [page.page_id for page in all_pages(memory, "tom")]})
    online = fake.calls - bulk
    assert 2 / CAPACITY * count <= online <= (2 / CAPACITY + 2 / 36) * count


def test_without_a_budget_each_batch_is_by_itself(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake, llm__bulk_tokens=0) as memory:
        ids = loaded(memory, "tom", 3 * CAPACITY)
        until(lambda: len(in_sessions(memory, "tom")) == 3 * CAPACITY, "all are in sessions")
        check_whole(memory, {"tom": ids})
    assert [len(unit) for unit in said(asked(fake, "topics"))] == [CAPACITY] * 3


def test_who_talks_is_not_held_up_by_a_bulk_load(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake) as memory:
        bulk = loaded(memory, "tom", 4 * CAPACITY)
        online = talked(memory, "ann", CAPACITY)
        until(lambda: in_sessions(memory, "ann") == sorted(online), "ann's pages are in sessions")
        waiting(memory, 4 * CAPACITY)
        assert not memory.sessions("tom")
        # Nor is the user's own talk: a full batch of it takes along what came before.
        bulk += talked(memory, "tom", CAPACITY, 4 * CAPACITY)
        until(lambda: in_sessions(memory, "tom") == sorted(bulk), "tom's pages are in sessions")
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, {"tom": bulk, "ann": online})


def test_what_is_embedded_meanwhile_goes_together(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.slow(1.0), task="topics")
    with opened(tmp_path, fake) as memory:
        ids = talked(memory, "tom", CAPACITY)
        fake.wait_for_calls(2)
        ids += talked(memory, "tom", 4 * CAPACITY, CAPACITY)
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, {"tom": ids})
    units = said(asked(fake, "topics"))
    assert [len(unit) for unit in units] == [CAPACITY, 4 * CAPACITY]
    assert [text for unit in units for text in unit] == texts(5 * CAPACITY)


def test_a_source_marks_pages_of_a_bulk_load(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake) as memory:
        for number in range(2 * CAPACITY):
            memory.add("tom", *page_text(number), source=SourceMark(b"file", number))
        waiting(memory, 2 * CAPACITY)
        assert fake.calls == 0
        memory.wait_idle(PATIENCE_S)
    assert said(asked(fake, "topics")) == [texts(2 * CAPACITY)]


def test_after_a_while_without_a_page_nothing_waits_any_longer(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake, llm__bulk_wait_s=0.5) as memory:
        ids = loaded(memory, "tom", 2 * CAPACITY + 4)
        until(lambda: len(in_sessions(memory, "tom")) == 2 * CAPACITY, "full batches are in sessions")
        assert memory.stats().waiting_pages == 0
        assert said(asked(fake, "topics")) == [texts(2 * CAPACITY)]
        check_order(memory, {"tom": ids})


def test_long_term_memory_waits_for_the_load_too(tmp_path: Path, fake: FakeOpenAI) -> None:
    count = 20 * CAPACITY
    with opened(tmp_path, fake, llm__bulk_tokens=1500) as memory:
        loaded(memory, "tom", count)
        memory.wait_idle(PATIENCE_S)
        assert memory.profile("tom").text
        units = asked(fake, "topics")
        told = said(asked(fake, "knowledge"))
        assert len(units) > 3
        assert 1 <= len(told) <= (len(units) + 1) // 2
        assert max(map(len, told)) > memory._engine.config.long_term.promotion_pages
        read = [text for unit in told for text in unit]
        assert len(read) == len(set(read))
        # One that reads more pages may tell more of them.
        longest = max(asked(fake, "knowledge"), key=lambda request: len(request.asked["pages"])).asked
        assert longest["most_user"] == 12 * -(-len(longest["pages"]) // 36)


def test_pages_that_wait_can_be_forgotten(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake) as memory:
        ids = loaded(memory, "tom", 3 * CAPACITY)
        others = loaded(memory, "ann", CAPACITY, 100)
        waiting(memory, 4 * CAPACITY)
        assert memory.forget(page_id=ids[4]) == 1
        assert memory.forget("ann") == CAPACITY
        waiting(memory, 3 * CAPACITY - 1)
        assert fake.calls == 0
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, {"tom": ids[:4] + ids[5:]})
        assert not [page for page in all_pages(memory) if page.page_id in others]
    gone = {page_text(4)[0], *texts(CAPACITY, 100)}
    assert not gone.intersection(text for request in fake.requests for text in said([request])[0])


def test_a_unit_that_cannot_be_worked_on_is_halved(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake) as memory:
        batches = memory._engine.batches
        submitted = list[int]()
        submit = batches._desk.submit

        def refusing(role: str, kind: str, payload: Any, answer: Any, **how: Any) -> int:
            if kind == "batch":
                submitted.append(len(payload["pages"]))
                if any("number13 " in page[0] for page in payload["pages"]):
                    payload = {**payload, "vectors": b"odd"}
            return submit(role, kind, payload, answer, **how)

        batches._desk.submit = refusing  # type: ignore[method-assign]
        ids = loaded(memory, "tom", 4 * CAPACITY)
        memory.wait_idle(PATIENCE_S)
        assert list(memory.stats().set_aside) == [ids[13]]
        check_order(memory, {"tom": ids})
        assert in_sessions(memory, "tom") == sorted(ids[:13] + ids[14:])
        assert submitted[0] == 4 * CAPACITY
        assert max(submitted[1:]) == 2 * CAPACITY


def load_and_wait(path: str, settings: dict[str, Any], count: int, told: Any) -> None:
    """Load in bulk in a process of its own, tell the ids when all waits, and never end."""
    memory = open_fake(Path(path), **settings)
    ids = loaded(memory, "tom", count)
    waiting(memory, count)
    told.send(ids)
    signal.pause()


def test_sigkill_while_a_load_waits_loses_nothing_and_it_goes_on(tmp_path: Path, fake: FakeOpenAI) -> None:
    count = 4 * CAPACITY
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    owner = context.Process(target=load_and_wait, args=(str(tmp_path), settings_of(fake), count, there))
    owner.start()
    try:
        assert here.poll(PATIENCE_S)
        ids = here.recv()
    finally:
        os.kill(owner.pid or 0, signal.SIGKILL)
        owner.join()
    assert fake.calls == 0
    with opened(tmp_path, fake) as memory:
        waiting(memory, count)
        assert fake.calls == 0
        ids += loaded(memory, "tom", CAPACITY, count)
        waiting(memory, count + CAPACITY)  # for one another
        assert fake.calls == 0
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, {"tom": ids})
    assert said(asked(fake, "topics")) == [texts(count + CAPACITY)]


def test_reopened_it_goes_on_by_itself(tmp_path: Path, fake: FakeOpenAI) -> None:
    with opened(tmp_path, fake) as memory:
        ids = loaded(memory, "tom", 3 * CAPACITY)
        waiting(memory, 3 * CAPACITY)
    assert fake.calls == 0
    with opened(tmp_path, fake, llm__bulk_wait_s=0.2) as memory:
        until(lambda: in_sessions(memory, "tom") == sorted(ids), "all are in sessions")
    assert said(asked(fake, "topics")) == [texts(3 * CAPACITY)]


def config_file(tmp_path: Path, fake: FakeOpenAI, **more: Any) -> Path:
    path = tmp_path / "settings.yaml"
    settings = {key.replace("__", "."): value for key, value in settings_of(fake, **more).items()}
    path.write_text(
        "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()) + "embedding.backend: fake\n"
    )
    return path


def ingesting(config_file: Path, store: Path, source: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "mos_pipeline",
        "ingest",
        source,
        "--store",
        str(store),
        "--config",
        str(config_file),
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


def lines(count: int, begin: int = 0) -> str:
    return "".join(f"{json.dumps(page)}\n" for page in pages("tom", count, begin))


def test_the_end_of_a_file_is_the_end_of_waiting(tmp_path: Path, fake: FakeOpenAI) -> None:
    source = tmp_path / "pages.jsonl"
    source.write_text(lines(5 * CAPACITY + 2))
    with ingesting(config_file(tmp_path, fake), tmp_path / "store", str(source)) as command:
        assert command.wait(PATIENCE_S) == 0
    assert said(asked(fake, "topics")) == [texts(5 * CAPACITY)]


def test_the_end_of_a_file_is_told_to_the_owner(tmp_path: Path, fake: FakeOpenAI) -> None:
    source = tmp_path / "pages.jsonl"
    source.write_text(lines(5 * CAPACITY + 2))
    with opened(tmp_path / "store", fake) as memory:
        assert main(["ingest", str(source), "--store", str(tmp_path / "store")]) == 0  # asks the owner: this process
        assert memory.stats().waiting_pages == 0
    assert said(asked(fake, "topics")) == [texts(5 * CAPACITY)]


def test_lines_that_trickle_in_do_not_wait_for_their_end(tmp_path: Path, fake: FakeOpenAI) -> None:
    settings = config_file(tmp_path, fake, llm__bulk_wait_s=0.5)
    with ingesting(settings, tmp_path / "store", "-") as command:
        assert command.stdin is not None
        command.stdin.write(lines(2 * CAPACITY))
        command.stdin.flush()
        fake.wait_for_calls(2, PATIENCE_S)  # and stdin is open still
        assert command.poll() is None
        assert said(asked(fake, "topics")) == [texts(2 * CAPACITY)]
        command.stdin.write(lines(CAPACITY, 2 * CAPACITY))
        command.stdin.close()
        assert command.wait(PATIENCE_S) == 0
    assert said(asked(fake, "topics"))[1:] == [texts(CAPACITY, 2 * CAPACITY)]
