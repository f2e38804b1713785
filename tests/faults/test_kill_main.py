"""The owner of a store is killed at any moment, alone or with all its children: nothing accepted is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mos_pipeline.store.verify import verify_store
from tests.faults.common import check_order, check_reopened, nothing_left, until
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KILLS = 20


@contextmanager
def driver(store: Path, notes: Path, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the driver in a session of its own, so that all its processes can be told and killed by it."""
    with (notes.with_suffix(".log")).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", store, notes, str(seed)],
            cwd=ROOT,
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if session(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def session(leader: int) -> list[int]:
    """Return the living processes of a session; zombies hold nothing any more."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == leader and fields[0] not in "ZX":
            pids.append(int(stat.parent.name))
    return pids


def noted(notes: Path, before: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return what was accepted before, and behind it what the driver noted."""
    accepted = {user: list(page_ids) for user, page_ids in before.items()}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        user, page_id = line.split()
        accepted.setdefault(user, []).append(page_id)
    return accepted


def blocks_of(leader: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"mos-{leader}-*")]


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
            time.sleep(rng.random() ** 2 * 1.5)
            os.killpg(process.pid, signal.SIGKILL) if everyone else process.kill()
            process.wait()
            until(lambda: not session(process.pid), "its children are gone")
            killed.append(process.pid)
        if (store / "MANIFEST").exists():
            accepted = take_over(store, noted(notes, accepted))
    assert sum(map(len, accepted.values())) > 20 * KILLS
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
