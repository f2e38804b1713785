"""The owner of a store is killed at any moment, alone or with all its children: nothing accepted is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mos_pipeline.store.verify import verify_store
from tests.faults.common import check_order, check_reopened, nothing_left, until
from tests.faults.processes import blocks_of, driver, noted, session
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

KILLS = 20


@pytest.mark.parametrize("everyone", [False, True], ids=["main", "all at once"])
def test_whoever_is_killed_whenever_nothing_is_lost(tmp_path: Path, *, everyone: bool) -> None:
    store = tmp_path / "store"
    rng = random.Random(everyone)
    accepted: dict[str, list[str]] = {}
    killed = []
    for kill in range(KILLS):
        notes = tmp_path / f"notes{kill}"
        with driver(store, notes, kill) as process:
            if rng.random() < 0.8:  # most are killed at work, some while they start
                until(notes.exists, "it is at work")
            time.sleep(rng.random() ** 2)
            os.killpg(process.pid, signal.SIGKILL) if everyone else process.kill()
            process.wait()
            if kill % 2:  # else the next owner comes while the children are still on their way out
                until(lambda: not session(process.pid), "its children are gone by themselves", pause_s=0.05)
            if (store / "MANIFEST").exists():
                accepted = take_over(store, noted(notes, accepted))
            until(lambda: not session(process.pid), "its children are gone by themselves", pause_s=0.05)
            killed.append(process.pid)
    assert sum(map(len, accepted.values())) > 10 * KILLS
    check_reopened(store, accepted)
    assert not [block for pid in killed for block in blocks_of(pid)]


def take_over(store: Path, accepted: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Check the store that a killed process left; return what it holds: one page may be there that nobody noted."""
    report = verify_store(store)
    assert report.ok, report.problems
    with nothing_left(), open_fake(store, workers=False) as memory:
        check_order(memory, accepted, unnoted=1)
        assert not memory.stats().damage
        return {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}
