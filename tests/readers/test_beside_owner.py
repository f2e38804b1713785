"""Eight readers beside an owner that adds, forgets, compacts, and is killed; and its successor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.readonly import ReadOnlyStore
from tests.faults.common import until
from tests.faults.processes import ROOT, blocks_of, session
from tests.readers.common import SETTINGS, fill, open_reader, settled
from tests.readers.notes import known
from tests.support import all_pages, open_fake

READERS = 8
WORK_S = 0.5


@contextmanager
def program(name: str, *arguments: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of this folder in a session of its own, and kill what is left of it at the end."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.readers.{name}", *map(str, arguments)],
            cwd=ROOT,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield process
    finally:
        if session(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def accepted(notes: Path) -> int:
    return len(known(notes).accepted) if notes.exists() else 0


def work(store: Path, notes: Path) -> None:
    """Wait until the owner has accepted pages and has compacted."""
    pages, generation = accepted(notes), Manifest.load(StoreFolder(store)).generation
    until(lambda: accepted(notes) > pages + 30, "pages are accepted")
    until(lambda: Manifest.load(StoreFolder(store)).generation > generation + 2, "the store is compacted")
    time.sleep(WORK_S)


@pytest.mark.slow
def test_eight_readers_beside_an_owner_that_is_killed_and_its_successor(tmp_path: Path) -> None:
    store, notes, log = tmp_path / "store", tmp_path / "notes", tmp_path / "log"
    readers = list[subprocess.Popen[bytes]]()
    with ExitStack() as running:
        owner = running.enter_context(program("owner", store, notes, 0, log=log))
        until(lambda: accepted(notes) > 5, "the owner is at work")
        for number in range(READERS):
            workers = ["workers"] if number < 2 else []
            readers.append(running.enter_context(program("follower", store, notes, number, *workers, log=log)))
        until(lambda: held(store) >= READERS, "all readers have begun")
        work(store, notes)
        owner.kill()
        owner.wait()
        running.enter_context(program("owner", store, notes, 1_000_000, log=log))
        work(store, notes)
        for reader in readers:
            answered, _ = reader.communicate(timeout=60)
            assert reader.returncode == 0, log.read_text()
            rounds, generations = map(int, answered.split())
            assert rounds > 3, log.read_text()
            assert generations > 1, f"no compaction was met in {rounds} rounds"
        until(lambda: not any(session(reader.pid) for reader in readers), "no child of a reader is left")
    assert not [block for reader in readers for block in blocks_of(reader.pid)]
    assert not [line for line in log.read_text().splitlines() if "Traceback" in line], log.read_text()
    with open_fake(store, **SETTINGS, workers=False) as memory:
        told = known(notes)
        pages = {page.metadata["number"] for page in all_pages(memory)}
        assert told.accepted - told.forgetting <= pages
        assert not pages & told.forgotten


def test_a_reader_that_is_killed_keeps_no_segments(tmp_path: Path) -> None:
    store, notes, log = tmp_path / "store", tmp_path / "notes", tmp_path / "log"
    notes.touch()
    with open_fake(store, **SETTINGS) as memory:
        ids = fill(memory, "tom", range(12))
        settled(memory)
        with program("follower", store, notes, 0, log=log) as reader:
            until(lambda: held(store), "the reader has pinned a generation")
            memory.forget(page_id=ids[0])
            memory.compact(60)
            reader.kill()
            reader.wait()
        memory.forget(page_id=ids[1])
        memory.compact(60)
    with open_fake(store, **SETTINGS), ReadOnlyStore.open(store) as left:
        assert len(list(StoreFolder(store).segments.iterdir())) == len(left.manifest.segments)


def held(store: Path) -> int:
    """Return how many readers hold a generation: the kernel's list of locks tells."""
    pins = {str(path.stat().st_ino) for path in StoreFolder(store).pins.iterdir()}
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sum(fields[1] == "FLOCK" and fields[5].rpartition(":")[2] in pins for fields in locks)


def test_a_reader_goes_on_when_the_owner_closes_and_another_begins(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", range(9))
        settled(memory)
    with open_reader(tmp_path, workers=False) as reader:
        for first in (9, 18):
            with open_fake(tmp_path, **SETTINGS) as memory:
                fill(memory, "tom", range(first, first + 9))
                reader.refresh()
                assert reader.retrieve("tom", f"number{first + 8}", k=1).pages
                assert len(all_pages(reader)) == first + 9
