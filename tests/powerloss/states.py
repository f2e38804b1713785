"""States that a power cut may leave, and what must hold of each."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from mos_pipeline.config import load_config
from mos_pipeline.engine import engine
from mos_pipeline.messages import decode_record, decode_tombstone
from mos_pipeline.store.codec import FrameKind, unpack_pages
from mos_pipeline.store.recovery import open_store
from mos_pipeline.store.verify import verify_store
from tests.powerloss.disk import Disk, Operation
from tests.powerloss.owner import SMALL
from tests.powerloss.recording import Mark
from tests.support import all_pages, open_fake

__all__ = ["SMALL_STORE", "Promise", "State", "check", "in_memory", "points", "states"]

SMALL_STORE = load_config(overrides=SMALL).store
WHOLE_EACH = 10


class Promise:
    """What callers know at some moment: which pages must be there, may be, and must not be.

    A page is ``user/number``. Of one user, pages are added by one thread: their order is known.
    """

    def __init__(self) -> None:
        self.begun: dict[str, list[str]] = {}
        self.added = set[str]()
        self.leaving = set[str]()
        self.forgotten = set[str]()

    def take(self, mark: Mark) -> None:
        """Take in what a caller has begun, or has seen return."""
        what, pages = mark
        match what:
            case "adding":
                for page in pages:
                    self.begun.setdefault(page.partition("/")[0], []).append(page)
            case "added":
                self.added.update(pages)
            case "forgetting":
                self.leaving.update(pages)
            case "forgot":
                self.forgotten.update(pages)

    @classmethod
    def of(cls, log: Iterable[Operation | Mark]) -> Promise:
        """Return what callers know after all of ``log``."""
        promise = cls()
        for entry in log:
            if isinstance(entry, Mark):
                promise.take(entry)
        return promise

    def check(self, found: Sequence[str]) -> None:
        """Check the pages of an opened store, in its order."""
        there = set(found)
        assert not (lost := self.added - self.leaving - there), f"accepted and lost: {sorted(lost)}"
        assert not (back := self.forgotten & there), f"forgotten and there: {sorted(back)}"
        by_user: dict[str, list[str]] = {}
        for page in found:
            by_user.setdefault(page.partition("/")[0], []).append(page)
        for user, pages in by_user.items():
            assert pages == [page for page in self.begun[user] if page in there], "twice, or out of order"


class State(NamedTuple):
    """A disk after a power cut, at which place of the log that was, and how it came about."""

    place: int
    how: str
    disk: Disk


def points(base: Disk, log: Sequence[Operation | Mark]) -> Iterator[tuple[int, Disk]]:
    """Yield place and disk after each operation. The disk goes on changing: copy what is to be kept."""
    disk = base.copy()
    for place, entry in enumerate(log):
        if not isinstance(entry, Mark):
            disk.apply(entry)
            yield place, disk


def states(base: Disk, log: Sequence[Operation | Mark], wanted: int, rng: random.Random) -> Iterator[State]:
    """Yield up to ``wanted`` different states, of all moments alike; at every one nothing may have been spared."""
    count = sum(not isinstance(entry, Mark) for entry in log)
    seen = set[tuple[bytes, int]]()
    marks, last = 0, 0
    for number, (place, disk) in enumerate(points(base, log), 1):
        marks += sum(isinstance(entry, Mark) for entry in log[last:place])
        last = place
        # One that was met before is no state more, so a few further tries are made; where all are alike, no more.
        for attempt in range(8 + 2 * wanted // count):
            if len(seen) * count >= wanted * number:
                break
            how = "lost" if not attempt else rng.choice(("broken", "broken", "broken", "settled"))
            state = disk.lost() if how == "lost" else disk.broken(rng) if how == "broken" else disk.settled()
            key = state.digest(), marks
            if key not in seen:
                seen.add(key)
                yield State(place, how, state)


@contextmanager
def in_memory() -> Iterator[Path]:
    """Provide a folder in memory; nothing waits for a disk, sweeps shared memory or logs what is as it is to be."""
    memory = Path("/dev/shm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "fdatasync", lambda _: None)
        patch.setattr(engine, "sweep", lambda _: None)
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)
        folder = Path(tempfile.mkdtemp(prefix="powerloss-", dir=memory if os.access(memory, os.W_OK) else None))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def check(state: State, promise: Promise, folder: Path, store: str, number: int) -> None:
    """Open what a power cut left of the folder ``store``, and check that it keeps the promise.

    Each is opened by the store's own recovery; some by the pipeline too, and verified before and after.
    """
    top = folder / "state"
    top.mkdir()
    state.disk.build(top)
    path = top / store
    try:
        if (path / "MANIFEST").exists() and not number % WHOLE_EACH:
            verify_store(path)
        promise.check(stored(path))
        if not number % WHOLE_EACH:
            with open_fake(path, workers=False, **SMALL) as memory:
                promise.check([_name(page.user_input) for page in all_pages(memory)])
                memory.add("late", "late/000 comes after the power cut", "yes")
                assert memory.pages("late")
            verify_store(path)
    finally:
        shutil.rmtree(top)


def stored(path: Path) -> list[str]:
    """Open a store and return its pages, in order, as its recovery gives them out."""
    held, forgotten = dict[int, bytes](), set[int]()
    with open_store(path, SMALL_STORE) as store:
        for frame in store.frames():
            if frame.kind == FrameKind.PAGES:
                first, _, bodies = unpack_pages(frame.body)
                held = {**dict(enumerate(bodies, first)), **held}
        for page in store.journaled_pages():
            held.setdefault(page.seq, page.body)
    for body in held.values():
        forgotten.update(decode_tombstone(body) or ())
    there = [body for seq, body in sorted(held.items()) if body and seq not in forgotten]
    return [_name(decode_record(body).user_input) for body in there if decode_tombstone(body) is None]


def _name(text: str) -> str:
    return text.partition(" ")[0]
