"""What is owed, loaded in bulk, forgotten and made again by another model, all at the same time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline, Repaid
from mos_pipeline.cli import main
from mos_pipeline.engine.lifting import TEXTS_AT_ONCE
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.verify import verify_store
from mos_pipeline.testing import FakeOpenAI, replies
from tests.faults.common import PATIENCE_S, check_consistent, until
from tests.faults.processes import ROOT
from tests.llm.everything import dimension_of
from tests.llm.test_bulk import loaded, talked
from tests.llm.test_llm_pipeline import check_whole, opened
from tests.llm.test_owed import ALL_TASKS, NEVER
from tests.support import all_pages, page_text
from tests.test_reembed import check_vectors, derived

KILLS = 10


class Noted:
    """What the program has noted: what was accepted, what is forgotten for sure, and what may be."""

    def __init__(self) -> None:
        self.accepted = dict[str, list[str]]()
        self.gone = set[str]()
        self.going = set[str]()

    def read(self, notes: Path) -> None:
        for line in notes.read_text().splitlines():
            kind, *told = line.split()
            if kind == "+":
                self.accepted.setdefault(told[0], []).append(told[1])
            else:
                (self.going if kind == "-" else self.gone).add(told[0])

    def check(self, memory: MemoryPipeline, *, unnoted: int) -> None:
        """Check that what must be there is, once and in order; and take what there is for what was accepted."""
        extra = 0
        for user in {*memory.users(), *self.accepted}:
            found, noted = [page.page_id for page in all_pages(memory, user)], self.accepted.get(user, [])
            assert len(found) == len(set(found))
            assert not self.gone.intersection(found), "it was forgotten"
            kept = [page for page in noted if page not in self.going or page in found]
            assert found[: len(kept)] == kept, f"{user}: a page is missing, doubled or out of order"
            extra += len(found) - len(kept)
            self.accepted[user] = found
        assert extra <= unnoted


def test_it_is_read_copied_and_settled_while_vectors_are_made_again(
    tmp_path: Path, fake: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    never: dict[str, Any] = {"llm__repay_interval_s": NEVER, "llm__bulk_wait_s": NEVER}
    fake.script.add(replies.status(404), times=None)
    with opened(store, fake, **never) as memory:
        ids = {"tom": loaded(memory, "tom", 90)}
        memory.wait_idle(PATIENCE_S)
        owed = memory.stats().owed
        assert owed["topics"] == 90
    fake.script.clear()
    fake.script.latency_s = 0.05
    changed = {**never, "embedding__fake_dimension": 500, "reembed": True}
    with ThreadPoolExecutor(1) as pool, opened(store, fake, embedding__fake_ms_per_text=20.0, **changed) as memory:
        until(lambda: memory.stats().restored, "it is read")
        asked = pool.submit(memory.repay)
        ids["ann"] = loaded(memory, "ann", 45, begin=100)
        gone = ids["tom"].pop(40)
        memory.forget(page_id=gone)
        memory.backup(copy)
        assert memory.stats().unlifted
        assert main(["stats", "--store", str(store), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["unlifted"] > 0
        with opened(store, fake, read_only=True) as reader:
            assert [page.page_id for page in all_pages(reader, "tom")] == ids["tom"]
            found = reader.retrieve("tom", "number17", k=1)
            assert (found.degraded, found.pages[0].page.page_id) == (True, ids["tom"][17])
            memory.wait_idle(PATIENCE_S)
            assert asked.result(PATIENCE_S).owed == 0
            assert main(["repay", "--store", str(store)]) == 0
            memory.wait_idle(PATIENCE_S)  # what was repaid is written
            reader.refresh()
            assert reader.stats().owed == memory.stats().owed == {}
            assert reader.stats().unlifted == memory.stats().unlifted == 0
        check_whole(memory, ids)
        check_vectors(memory, 500)
    with opened(copy, fake, **changed) as memory:
        memory.wait_idle(PATIENCE_S)
        assert memory.repay(timeout=PATIENCE_S).owed == 0
        check_whole(memory, ids)
        check_vectors(memory, 500)


def test_who_asks_while_vectors_are_made_again_is_answered_when_they_are_there(
    tmp_path: Path, fake: FakeOpenAI
) -> None:
    fake.script.add(replies.status(404), times=None, task="topics")
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        ids = {"tom": loaded(memory, "tom", 90)}
        memory.wait_idle(PATIENCE_S)
    fake.script.clear()
    changed: dict[str, Any] = {"embedding__fake_dimension": 500, "embedding__fake_ms_per_text": 20.0, "reembed": True}
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER, **changed) as memory:
        assert memory.repay(timeout=PATIENCE_S) == Repaid(90, 0)
        check_whole(memory, ids)
        check_vectors(memory, 500)


def test_a_page_is_not_asked_of_before_the_one_that_it_may_continue_has_its_vector(
    tmp_path: Path, fake: FakeOpenAI
) -> None:
    pages = 9 + TEXTS_AT_ONCE  # the first batch is made again last, and by itself
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        talked(memory, "tom", 9)
        memory.wait_idle(PATIENCE_S)
        fake.script.add(replies.status(404), times=None, task="continuity")
        talked(memory, "tom", pages - 9, begin=9)
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().owed == {"continuity": 27}
    fake.script.clear()
    calls = fake.calls
    changed: dict[str, Any] = {"embedding__fake_dimension": 500, "embedding__fake_ms_per_text": 50.0, "reembed": True}
    changed["embedding__in_flight_texts"] = 8  # so that one part is made after the other
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER, **changed) as memory:
        assert memory.repay(timeout=PATIENCE_S) == Repaid(27, 0)
    asked = [request.asked for request in list(fake.requests)[calls:] if request.task == "continuity"]
    befores = {one["pages"][0]["user"]: one["before"] and one["before"]["user"] for one in asked}
    assert befores[page_text(9)[0]] == page_text(8)[0]


@pytest.mark.slow
def test_an_owner_killed_at_any_moment_of_everything(tmp_path: Path, fake: FakeOpenAI) -> None:
    store, rng, noted = tmp_path / "store", random.Random(11), Noted()
    fake.script.latency_s = 0.01
    for kill in range(KILLS):
        notes = tmp_path / f"notes{kill}"
        command = [sys.executable, "-m", "tests.llm.everything", str(store), str(notes), str(kill), fake.base_url]
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
            try:
                until(notes.exists, "it is at work")
                for _ in range(3):  # it owes, and repays
                    reply = rng.choice([replies.status(404), replies.status(500), replies.hang(), replies.truncated()])
                    fake.script.add(reply, times=None, task=rng.choice([None, *sorted(ALL_TASKS)]))
                    time.sleep(rng.random() * 0.8)
                    fake.script.clear()
                    time.sleep(rng.random() * 0.4)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
        noted.read(notes)
        with opened(store, fake, workers=False, embedding__fake_dimension=_dimension(store)) as memory:
            noted.check(memory, unnoted=90)
    assert verify_store(store).ok
    settings = {"llm__repay_interval_s": NEVER, "embedding__fake_dimension": dimension_of(KILLS), "reembed": True}
    with opened(store, fake, **settings) as memory:
        memory.wait_idle(PATIENCE_S)
        assert memory.repay(timeout=PATIENCE_S).owed == 0
        memory.wait_idle(PATIENCE_S)
        noted.check(memory, unnoted=0)
        check_consistent(memory)
        check_vectors(memory, dimension_of(KILLS))
        assert memory.stats().owed == {}
        assert not memory.stats().set_aside
        told = derived(memory)
        memory.compact(PATIENCE_S)
        assert derived(memory) == told
        assert memory.verify().ok
    with opened(store, fake, **settings) as memory:
        memory.wait_idle(PATIENCE_S)
        check_consistent(memory)
        check_vectors(memory, dimension_of(KILLS))
        assert memory.stats().owed == {}
        assert derived(memory) == told


def _dimension(store: Path) -> int:
    embedding = Manifest.load(StoreFolder(store)).embedding
    return int(embedding["dimension"]) if embedding else dimension_of(0)
