"""The power fails at any moment: with ``durability: power`` every page whose ``add`` had returned is there.

Thousands of states that a disk may be in afterwards are made and opened, ``MOS_CRASH_STATES`` of them (3,000).
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mos_pipeline.store.journal import Journal
from mos_pipeline.store.recovery import open_store
from tests.powerloss.disk import Disk, Link, Written
from tests.powerloss.recording import Mark, Recorder
from tests.powerloss.states import SMALL_STORE, Promise, check, in_memory, points, states
from tests.powerloss.stories import STORE, Told, crowd, life, successor

pytestmark = pytest.mark.slow

STATES = int(os.environ.get("MOS_CRASH_STATES", "3000"))
SUCCESSORS = 12


@pytest.fixture
def top() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


def check_states(told: Told, wanted: int, rng: random.Random, folder: Path) -> int:
    """Check up to ``wanted`` states, each in ``folder``; return how many there were."""
    base, log = told
    count = -1
    for count, state in enumerate(states(base, log, wanted, rng)):
        check(state, Promise.of(log[: state.place]), folder, STORE, count)
    return count + 1


@pytest.mark.parametrize(("story", "share"), [(life, 0.5), (crowd, 0.12)])
def test_whenever_the_power_fails_nothing_accepted_is_lost(
    top: Path, story: Callable[[Path], Told], share: float
) -> None:
    wanted = int(STATES * share)
    count = check_states(story(made(top / "first")), wanted, random.Random(1), top)
    assert count >= 0.9 * wanted


def kills(told: Told, rng: random.Random) -> Iterator[tuple[Disk, list[Mark]]]:
    """Yield what stands on the disk, or is on its way there, at some moments, and the marks until then.

    The moments are those just after a write, or a rename, that no flush has followed yet.
    """
    base, log = told
    writes = [place for place, entry in enumerate(log) if isinstance(entry, Written)]
    renames = [place for place, entry in enumerate(log) if isinstance(entry, Link) and len(entry.names) > 1]
    places = {*rng.sample(writes, SUCCESSORS // 2), *rng.sample(renames, SUCCESSORS // 2)}
    for place, disk in points(base, log):
        if place in places:
            yield disk.copy(), [entry for entry in log[:place] if isinstance(entry, Mark)]


@pytest.mark.parametrize("first", ["the owner is killed", "the power fails"])
def test_and_it_fails_again_under_the_next_owner(top: Path, first: str) -> None:
    rng = random.Random(first)
    wanted = int(STATES * 0.2 / SUCCESSORS)
    checked = 0
    for number, (disk, marks) in enumerate(kills(life(made(top / "first")), rng)):
        left = disk if first == "the owner is killed" else disk.broken(rng)
        checked += check_states(successor(made(top / f"next{number}"), left, marks), wanted, rng, top)
    assert checked >= 0.9 * wanted * SUCCESSORS


def test_opening_makes_safe_what_it_builds_on(top: Path) -> None:
    """Its owner may have been killed between a write, or a rename, and the flush that was to follow."""
    base, log = life(made(top / "first"))
    tried, unsafe = 0, list[str]()
    for place, disk in points(base, log):
        before = relied_on(disk.settled())
        if before and (before != relied_on(disk.lost()) or not place % 50):
            tried += 1
            folder = made(top / f"next{place}")
            disk.settled().build(folder)
            with pytest.MonkeyPatch.context() as patch:
                recorder = Recorder(patch, folder, disk.copy())
                open_store(folder / STORE, SMALL_STORE).close()
            after = recorder.after()
            spared = relied_on(after.lost())
            unsafe += [path for path, data in relied_on(after.settled()).items() if spared.get(path) != data]
            shutil.rmtree(folder)
    assert tried > 50
    assert not unsafe


def relied_on(disk: Disk) -> dict[str, bytes]:
    """Return MANIFEST, the last segment it names, and the journals with anything in them; none without MANIFEST."""
    files = {path.removeprefix(f"{STORE}/"): data for path, data in disk.content() if data is not None}
    if "MANIFEST" not in files:
        return {}
    segments = json.loads(files["MANIFEST"])["segments"]
    wanted = {"MANIFEST", *(f"segments/{number:08d}.segment" for number in segments[-1:])}
    journals = {path for path, data in files.items() if path.endswith(".journal") and data.strip(b"\0")}
    return {path: files[path] for path in sorted(wanted | journals)}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_journal_that_is_not_flushed_is_found_out(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states are worth something: what breaks the promise shows in them."""
    monkeypatch.setattr(Journal, "sync", lambda _: None)
    with pytest.raises(AssertionError, match="accepted and lost"):
        check_states(life(made(top / "first")), 200, random.Random(3), top)
