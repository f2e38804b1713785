"""What a model owes is kept, shown and repaid: through the whole pipeline, with the fake endpoint."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline, Repaid
from mos_pipeline.cli import main
from mos_pipeline.errors import ConfigError, DeadlineError, InputError
from mos_pipeline.metrics import prometheus
from mos_pipeline.store.verify import verify_store
from mos_pipeline.testing import FakeOpenAI, Reply, replies
from tests.faults.common import PATIENCE_S, check_consistent, check_order, until
from tests.faults.processes import ROOT, noted
from tests.llm.test_bulk import pages, talked
from tests.llm.test_llm_pipeline import PAGES, USERS, added, check_whole, opened, restarted, texts_of
from tests.support import all_pages, open_fake, page_text
from tests.test_metrics import check_agree
from tests.test_reembed import check_vectors

KILLS = 12
NEVER = 3600.0
OFTEN = {"llm__repay_interval_s": 0.2}
ALL_TASKS = {"continuity", "topics", "profile", "knowledge"}


def check_told_by_the_model(memory: MemoryPipeline, users: Sequence[str] = USERS) -> None:
    """Check that nothing is left of what the extractive provider told."""
    for user in users:
        assert memory.sessions(user)
        assert all(session.summary.startswith("They spoke of this: ") for session in memory.sessions(user))
        assert all(fact.text.startswith("The user said: ") for fact in memory.knowledge(user))
        assert memory.profile(user).text.startswith("- interest in this: High, said number")
        found = memory.retrieve(user, "number", k=PAGES, timeout=PATIENCE_S).pages
        assert all("Then: " in hit.overview for hit in found if hit.overview)


def test_what_was_repaid_is_made_again_by_another_model(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        added(memory)
        memory.wait_idle(PATIENCE_S)
    fake.script.clear()
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        memory.wait_idle(PATIENCE_S)
        assert memory.repay(timeout=PATIENCE_S).owed == 0
        check_told_by_the_model(memory)
        told = [list(texts_of(memory, user)) for user in USERS]
    other = {"embedding__fake_dimension": 500, "llm__repay_interval_s": NEVER}
    with opened(tmp_path, fake, reembed=True, **other) as memory:
        memory.wait_idle(PATIENCE_S)
        check_vectors(memory, 500)
        check_consistent(memory)
        assert [list(texts_of(memory, user)) for user in USERS] == told
    with opened(tmp_path, fake, **other) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        check_vectors(memory, 500)


def test_what_is_owed_is_told_survives_and_is_repaid_on_request(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        ids = added(memory)
        check_whole(memory, ids)
        owed = memory.stats().owed
        assert owed == dict.fromkeys(["continuity", "topics"], len(USERS) * PAGES) | {
            "profile": owed["profile"],
            "knowledge": owed["profile"],
        }
        before = memory.repay()
        assert before.repaid == 0
        assert before.owed == sum(owed.values())
        check_whole(memory, ids)
    fake.script.clear()
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        assert memory.stats().owed == owed
        done = memory.repay(timeout=PATIENCE_S)
        assert (done.repaid, done.owed) == (sum(owed.values()), 0)
        assert memory.stats().owed == {}
        check_whole(memory, ids)
        check_told_by_the_model(memory)
        calls = fake.calls
        assert memory.repay() == Repaid(0, 0)
        assert fake.calls == calls
        told = [list(texts_of(memory, user)) for user in USERS]
    with opened(tmp_path, fake) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        assert memory.stats().owed == {}
        check_whole(memory, ids)
        assert [list(texts_of(memory, user)) for user in USERS] == told


def owed_of(memory: MemoryPipeline) -> int:
    return sum(memory.stats().owed.values())


def nothing_owed(memory: MemoryPipeline) -> bool:
    return not memory.stats().owed


@pytest.mark.parametrize("plan", ["batched", "per_page"])
def test_it_is_repaid_by_itself_when_the_endpoint_is_back(tmp_path: Path, fake: FakeOpenAI, plan: str) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=0.2, llm__plan=plan) as memory:
        ids = added(memory)
        check_whole(memory, ids)
        assert owed_of(memory)
        calls = fake.calls
        until(lambda: fake.calls >= calls + 4, "it is tried again and again")
        assert owed_of(memory)
        fake.script.clear()
        until(partial(nothing_owed, memory), "everything is repaid")
        check_whole(memory, ids)
        check_told_by_the_model(memory)


def test_a_dead_endpoint_costs_one_deadline_and_what_became_owed_is_repaid(tmp_path: Path, fake: FakeOpenAI) -> None:
    settings = {"llm__deadline_s": 3.0, "llm__timeout_s": 3.0, "llm__repay_interval_s": 0.5, "llm__processes": 2}
    with opened(tmp_path, fake, **settings) as memory:
        ids = added(memory, 9)
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().endpoint == "up"
        assert nothing_owed(memory)
        fake.down()
        for begin in range(9, 90, 9):
            for user, new in added(memory, 9, begin=begin).items():
                ids[user] += new
        memory.wait_idle(PATIENCE_S)  # 27 batches: nobody waits for a deadline each
        stats = memory.stats()
        assert stats.endpoint.startswith("down since ")
        assert stats.owed["topics"] >= 2 * 81
        check_agree(prometheus(stats), stats)
        check_whole(memory, ids)
        fake.up()
        until(partial(nothing_owed, memory), "everything is repaid")
        until(lambda: memory.stats().endpoint == "up", "both processes have heard of it")
        check_whole(memory, ids)
        check_told_by_the_model(memory)
        assert memory.repay().repaid == 0


FAULTS: dict[str, dict[str, Reply]] = {
    "no answer": {
        "latency beyond the deadline": replies.slow(5.0),
        "hang": replies.hang(),
        "reset in mid-answer": replies.reset(),
    },
    "refusals": {
        "429 storm": replies.status(429),
        "429 with Retry-After": replies.status(429, retry_after=2),
        "500": replies.status(500),
    },
    "nonsense": {
        "empty": replies.empty(),
        "truncated": replies.truncated(),
        "wrong types": replies.wrong_types(),
        "wrong language": replies.wrong_language(),
        "10 MB": replies.huge(10 << 20),
        "invalid UTF-8": replies.invalid_utf8(),
        "an error as text": replies.content("Error: Could not get response from LLM."),
    },
}


@pytest.mark.parametrize("kind", FAULTS)
def test_after_any_fault_the_debt_is_told_and_can_be_repaid(tmp_path: Path, fake: FakeOpenAI, kind: str) -> None:
    settings = {"llm__deadline_s": 0.7, "llm__timeout_s": 0.5, "llm__repay_interval_s": NEVER}
    ids = dict[str, list[str]]()
    with opened(tmp_path, fake, **settings) as memory:
        for fault, reply in FAULTS[kind].items():  # one after the other, each with users of its own
            users = [f"{user} {fault}" for user in USERS]
            fake.script.add(reply, times=None)
            try:
                owe_and_repay(memory, fake, ids, users)
            except AssertionError as error:
                error.add_note(f"the fault: {fault}")
                raise


def owe_and_repay(memory: MemoryPipeline, fake: FakeOpenAI, ids: dict[str, list[str]], users: list[str]) -> None:
    """Add pages of ``users`` while the endpoint fails, and have what is owed repaid when it does not any more."""
    ids |= added(memory, 9, users=users)
    check_whole(memory, ids)
    stats = memory.stats()
    pages = 9 * len(users)
    assert stats.owed == {"continuity": pages, "topics": pages, "profile": pages, "knowledge": pages}
    assert memory.repay() == Repaid(0, 4 * pages)
    check_whole(memory, ids)
    fake.script.clear()
    found = Repaid(0, 4 * pages)
    repaid = 0
    while found.owed:  # a probe may find the endpoint slowed down still, by a 429
        found = memory.repay(timeout=PATIENCE_S)
        repaid += found.repaid
    assert repaid == 4 * pages
    assert nothing_owed(memory)
    check_whole(memory, ids)
    check_told_by_the_model(memory, users)
    until(lambda: memory.stats().endpoint == "up", "it is known that the endpoint is back")


@pytest.mark.parametrize("task", sorted(ALL_TASKS))
def test_each_task_is_owed_and_repaid_for_itself(tmp_path: Path, fake: FakeOpenAI, task: str) -> None:
    fake.script.add(replies.status(404), times=None, task=task)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        ids = added(memory)
        check_whole(memory, ids)
        assert memory.stats().owed.keys() == {task}
        owed = owed_of(memory)
    fake.script.clear()
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        memory.wait_idle(PATIENCE_S)
        calls = fake.calls
        assert memory.repay() == Repaid(owed, 0)
        assert {request.task for request in list(fake.requests)[calls:]} == {task}
        check_whole(memory, ids)
        check_told_by_the_model(memory)


def test_what_can_never_be_answered_holds_nothing_else_up(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        ids = added(memory)
        check_whole(memory, ids)
        fake.script.clear()
        for task in sorted(ALL_TASKS - {"continuity"}):
            fake.script.add(replies.wrong_types(), times=None, task=task)
        assert memory.repay().repaid == len(USERS) * PAGES
        assert memory.stats().owed.keys() == ALL_TASKS - {"continuity"}
        fake.script.clear()
        fake.script.add(replies.wrong_types(), times=None, task="topics")
        owed = memory.stats().owed
        assert memory.repay() == Repaid(owed["profile"] + owed["knowledge"], owed["topics"]), "one after the other"
        check_whole(memory, ids)
    with opened(tmp_path, fake, llm__repay_interval_s=0.2) as memory:
        calls = fake.calls
        until(lambda: fake.calls > calls + 4, "it is tried again by itself")
        fake.script.clear()
        until(partial(nothing_owed, memory), "everything is repaid")
        check_whole(memory, ids)
        check_told_by_the_model(memory)


@pytest.mark.parametrize("asked", [None, 0.2, PATIENCE_S], ids=["by itself", "given up", "waited for"])
def test_who_has_pages_that_wait_holds_nobody_else_up(tmp_path: Path, fake: FakeOpenAI, asked: float | None) -> None:
    def owed_topics() -> int:
        return memory.stats().owed.get("topics", 0)

    with ThreadPoolExecutor(1) as pool, opened(tmp_path, fake, llm__bulk_wait_s=NEVER, **OFTEN) as memory:
        fake.script.add(replies.status(404), times=None)
        talked(memory, "tom", 9)
        until(lambda: owed_topics() == 9, "tom's pages are owed")
        memory.add_batch(pages("tom", 9, begin=9))
        until(lambda: memory.stats().waiting_pages == 9, "there is a batch of tom's under way, which waits for more")
        repaid = pool.submit(memory.repay, "tom", timeout=asked) if asked else None
        if asked == 0.2 and repaid is not None:
            assert isinstance(repaid.exception(PATIENCE_S), DeadlineError)
        time.sleep(0.5)  # a round of tom alone has begun
        talked(memory, "ann", 9)
        until(lambda: owed_topics() == 18, "ann's pages are owed, too")
        fake.script.clear()
        until(lambda: owed_topics() == 9, "ann's are repaid")
        assert memory.repay("ann", timeout=PATIENCE_S).owed == 0
        memory.wait_idle(PATIENCE_S)
        until(partial(nothing_owed, memory), "everything is repaid")
        if asked == PATIENCE_S and repaid is not None:
            assert isinstance(repaid.result(PATIENCE_S), Repaid), "who has waited is told what came of it"


@pytest.mark.parametrize("task", ["profile", "knowledge"])
def test_what_is_owed_of_promotions_waits_for_no_batch(tmp_path: Path, fake: FakeOpenAI, task: str) -> None:
    fake.script.add(replies.status(404), times=None, task=task)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER, llm__bulk_wait_s=NEVER) as memory:
        talked(memory, "tom", 9)
        memory.wait_idle(PATIENCE_S)
        memory.add_batch(pages("tom", 9, begin=9))
        until(lambda: memory.stats().waiting_pages == 9, "there is a batch of tom's under way, which waits for more")
        assert memory.repay(timeout=5.0).owed == 9, "it is asked, and that is all"
        fake.script.clear()
        assert memory.repay(timeout=5.0) == Repaid(9, 0)
        assert memory.stats().waiting_pages == 9


@pytest.mark.parametrize("analysed", [False, True])
def test_wait_idle_waits_for_a_promotion_that_a_repayment_is_in_the_way_of(
    tmp_path: Path, fake: FakeOpenAI, analysed: bool
) -> None:
    hot = {"mid_term__heat_threshold": 1e9 if analysed else 0.1}
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER, **hot) as memory, ThreadPoolExecutor(1) as pool:
        fake.script.add(replies.status(404), times=None)
        talked(memory, "tom", 9)
        memory.wait_idle(PATIENCE_S)
        if analysed:
            memory.analyse("tom", timeout=PATIENCE_S)
        assert memory.stats().owed["knowledge"] == 9
        fake.script.clear()
        fake.script.add(replies.slow(3.0), task="profile")
        calls = fake.calls
        asked = pool.submit(memory.repay)
        until(lambda: any(request.task == "profile" for request in list(fake.requests)[calls:]), "it is asked for")
        talked(memory, "tom", 9, begin=9)
        if analysed:
            memory.analyse("tom", timeout=PATIENCE_S)
        memory.wait_idle(PATIENCE_S)
        known = " ".join(fact.text for fact in memory.knowledge("tom"))
        assert "number17" in known
        assert asked.result(PATIENCE_S).owed == 0


def test_compaction_and_readers_know_what_is_owed(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        ids = added(memory)
        check_whole(memory, ids)
        gone = ids["tom"].pop(3)
        memory.forget(page_id=gone)
        memory.compact(PATIENCE_S)
        check_whole(memory, ids)
        memory.compact(PATIENCE_S)
        memory.flush()
        owed = memory.stats().owed
        assert owed["continuity"] == owed["topics"] == len(USERS) * PAGES - 1
        with MemoryPipeline.open(tmp_path, read_only=True, workers=False) as reader:
            assert reader.stats().owed == owed
    fake.script.clear()
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().owed == owed
        assert memory.repay().owed == 0
        check_whole(memory, ids)
        memory.compact(PATIENCE_S)
    with opened(tmp_path, fake) as memory:
        check_whole(memory, ids)
        assert nothing_owed(memory)
        check_told_by_the_model(memory)


def test_nothing_is_left_of_a_page_that_is_forgotten_before_while_or_after_it_is_repaid(
    tmp_path: Path, fake: FakeOpenAI
) -> None:
    secret = "obsidian"
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER, llm__processes=1) as memory:
        for user in USERS:
            for number in range(PAGES - 1):
                memory.add(user, *page_text(number))
                if number == 4:
                    told = memory.add(user, f"I keep my {secret} statue in the harbour.", f"An {secret} statue!")
                    if user == "tom":
                        first = told
                    last = told
        memory.wait_idle(PATIENCE_S)
        memory.forget(page_id=first)
        memory.wait_idle(PATIENCE_S)
        fake.script.clear()
        fake.script.latency_s = 0.3
        calls = fake.calls
        thread = threading.Thread(target=memory.repay)
        thread.start()
        fake.wait_for_calls(calls + 1)
        memory.forget("ann")
        thread.join()
        fake.script.latency_s = 0.0
        until(lambda: not memory.repay().owed, "what could not be repaid then is repaid now")
        assert secret in " ".join(texts_of(memory, "lea"))
        memory.forget(page_id=last)
        memory.wait_idle(PATIENCE_S)
        for user in USERS:
            assert secret not in " ".join(texts_of(memory, user))
            assert not [one for one in memory.sessions(user) if secret in one.keywords]
        assert len(all_pages(memory)) == 2 * (PAGES - 1)
        check_consistent(memory)
        assert nothing_owed(memory)


def test_a_worker_killed_while_it_repays_costs_nothing_and_repeats_nothing(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        ids = added(memory)
        check_whole(memory, ids)
        fake.script.clear()
        fake.script.latency_s = 0.2
        owed, calls = owed_of(memory), fake.calls
        found = list[Repaid]()
        thread = threading.Thread(target=lambda: found.append(memory.repay()))
        thread.start()
        for more in (1, 5):
            fake.wait_for_calls(calls + more)
            until(lambda: fake.in_flight, "a call is in flight", pause_s=0.002)
            before = memory.stats().workers["llm"]
            for pid in before.pids:
                os.kill(pid, signal.SIGKILL)
            until(partial(restarted, memory, before.restarts), "its death was noticed")
        thread.join(PATIENCE_S)
        assert found == [Repaid(owed, 0)]
        check_whole(memory, ids)
        check_told_by_the_model(memory)


@pytest.mark.slow
def test_an_owner_killed_at_any_moment_loses_and_repeats_nothing_of_what_is_owed(
    tmp_path: Path, fake: FakeOpenAI
) -> None:
    store, rng, accepted = tmp_path / "store", random.Random(7), dict[str, list[str]]()
    fake.script.latency_s = 0.01
    for kill in range(KILLS):
        notes = tmp_path / f"notes{kill}"
        command = [sys.executable, "-m", "tests.llm.debtor", str(store), str(notes), str(kill), fake.base_url]
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
            try:
                until(notes.exists, "it is at work")
                for _ in range(3):  # it owes, and repays
                    fake.script.add(replies.status(404), times=None, task=rng.choice([None, *sorted(ALL_TASKS)]))
                    time.sleep(rng.random() * 0.4)
                    fake.script.clear()
                    time.sleep(rng.random() * 0.4)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
        for user, new in noted(notes, {}).items():
            accepted.setdefault(user, []).extend(new)
        with opened(store, fake, workers=False) as memory:
            check_order(memory, accepted, unnoted=1)
            accepted = {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}
    assert verify_store(store).ok
    with opened(store, fake, llm__repay_interval_s=NEVER) as memory:
        check_whole(memory, accepted)
        assert memory.repay().owed == 0
        assert nothing_owed(memory)
        check_whole(memory, accepted)
        check_told_by_the_model(memory)
        memory.wait_idle(PATIENCE_S)  # what was looked for above is counted
        state = [scope.mid_term.as_plain()[2] for scope in memory._engine.state.scopes]
    with opened(store, fake, llm__repay_interval_s=NEVER) as memory:
        memory.wait_idle(PATIENCE_S)
        assert [scope.mid_term.as_plain()[2] for scope in memory._engine.state.scopes] == state
        check_whole(memory, accepted)
        assert nothing_owed(memory)


def test_who_asks_an_owner_by_the_command_line_and_who_can_not_be_asked(
    tmp_path: Path, fake: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        added(memory)
        memory.wait_idle(PATIENCE_S)
        owed = owed_of(memory)
        assert main(["stats", "--store", str(tmp_path)]) == 0
        assert re.search(r"owed topics +of 54 pages\n", capsys.readouterr().out)
        main(["doctor", "--store", str(tmp_path)])
        assert re.search(r"owed: pages by task: continuity of 54, topics of 54, ", capsys.readouterr().out)
        fake.script.clear()
        assert main(["repay", "--store", str(tmp_path), "--user", "tom", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["owed"] == 0
        assert told["repaid"] + owed_of(memory) == owed
        assert main(["repay", "--store", str(tmp_path)]) == 0
        assert re.search(r"still owed +0 answers\n", capsys.readouterr().out)
        reader = MemoryPipeline.open(tmp_path, read_only=True, workers=False)
        with reader, pytest.raises(InputError, match="read-only"):
            reader.repay()
    with open_fake(tmp_path) as memory, pytest.raises(ConfigError, match=r"llm\.provider is extractive"):
        memory.repay()
    with opened(tmp_path, fake, workers=False) as memory, pytest.raises(InputError, match="workers=False"):
        memory.repay()
