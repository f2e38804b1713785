"""What owners of a store do before the power fails."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from tests.powerloss.disk import Disk, Operation
from tests.powerloss.owner import owner
from tests.powerloss.recording import Mark, Recorder
from tests.support import all_pages

__all__ = ["PATIENCE_S", "STORE", "Story", "Told", "crowd", "life", "successor"]

PATIENCE_S = 60.0
STORE = "some/where/store"  # folders above it are made, too
USERS = ("ann", "ben", "cem")


class Story:
    """An open store, and what its callers see return."""

    def __init__(self, memory: MemoryPipeline, recorder: Recorder, seed: object) -> None:
        self.memory = memory
        self._recorder = recorder
        self._rng = random.Random(f"{seed}")
        self._number = 0

    def add(self, count: int, users: Sequence[str] = USERS, size: int = 300) -> None:
        """Add pages of some ``size`` bytes that hardly can be compressed."""
        for _ in range(count):
            page = f"{self._rng.choice(users)}/{self._number:03d}"
            self._number += 1
            self.put(page, size)

    def put(self, page: str, size: int) -> None:
        """Add a page; a page that is known already is one page."""
        text = random.Random(page).randbytes(size // 2).hex(" ", 4)
        self._recorder.mark("adding", page)
        own_id = page if int(page[-1]) % 2 else None
        self.memory.add(page.partition("/")[0], f"{page} {text}", "I see.", page_id=own_id)
        self._recorder.mark("added", page)

    def again(self, pages: Sequence[str]) -> None:
        """Add pages that are there already, under the ids that they were given."""
        for page in pages:
            if int(page[-1]) % 2:
                self.memory.add(page.partition("/")[0], "once more", "I see.", page_id=page)
                self._recorder.mark("added", page)

    def pages(self, user: str | None = None) -> list[str]:
        """Return what is there."""
        return [page.user_input.split()[0] for page in all_pages(self.memory, user)]

    def forget(self, user: str) -> None:
        """Forget all pages of a user."""
        pages = self.pages(user)
        self._recorder.mark("forgetting", *pages)
        self.memory.forget(user)
        self._recorder.mark("forgot", *pages)

    def idle(self) -> None:
        """Wait until everything is worked off and written."""
        self.memory.wait_idle(PATIENCE_S)


class Told(tuple[Disk, list[Operation | Mark]]):
    """A story that was told: the disk before it, and all that happened."""

    __slots__ = ()


def life(top: Path) -> Told:
    """A store is made, filled, forgotten from, compacted, closed and opened again; journals and segments change."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, top)
        with owner(top / STORE, patch) as memory:
            story = Story(memory, recorder, "life")
            story.add(10)
            story.add(2, size=40_000)  # so that the journal changes, and the segment
            story.add(8)
            story.idle()
            story.forget("ben")
            story.add(4)
            memory.compact(PATIENCE_S)
            story.add(4, size=20_000)
        with owner(top / STORE, patch) as memory:
            story.memory = memory
            story.add(6, size=5000)
            story.forget("cem")
            story.add(3)
            story.idle()
            memory.compact(PATIENCE_S)
    return Told((recorder.base, recorder.log))


def crowd(top: Path) -> Told:
    """Four threads add at once: one flush is for many, and torn pages may lie between whole ones."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, top)
        with owner(top / STORE, patch) as memory:
            stories = [Story(memory, recorder, user) for user in "abcd"]
            threads = [
                threading.Thread(target=story.add, args=(12, (user,), 2000))
                for story, user in zip(stories, "abcd", strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return Told((recorder.base, recorder.log))


def successor(top: Path, disk: Disk, before: Sequence[Mark]) -> Told:
    """Someone opens what another owner left on ``disk``: what it finds there counts as accepted, and it goes on."""
    disk.settled().build(top)
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, top, disk)
        recorder.log.extend(before)
        with owner(top / STORE, patch) as memory:
            story = Story(memory, recorder, "successor")
            there = story.pages()
            # Resuming a file counts them, and whoever adds one of them again is told that it is known.
            recorder.mark("added", *there)
            story.again(there)
            story.add(3, users=("dan",))
            story.idle()
            story.add(2, users=("dan",), size=3000)
    return Told((recorder.base, recorder.log))
