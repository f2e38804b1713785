"""Programs that run where there is no room: ``python -m tests.faults.cramped WHAT FOLDER``, in mounts of their own."""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from pathlib import Path

from mos_pipeline import MemoryPipeline
from mos_pipeline.errors import StoreFullError
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from tests.faults.common import PATIENCE_S, check_consistent, check_found, check_order, check_reopened, fill, until
from tests.support import all_pages, open_fake

__all__ = ["full_disk", "small_shared_memory"]

MIB = 1 << 20


def small_shared_memory(folder: Path) -> None:
    """Check that vectors go to files where /dev/shm has no room for them."""
    with open_fake(folder / "store") as memory:
        fill(memory, 100)
        memory.wait_idle(PATIENCE_S)
        pool = memory._engine.embedding.pool
        assert pool.usage.file_backed
        assert list((folder / "store").glob("mos-*"))
        check_consistent(memory)
        check_found(memory, all_pages(memory)[::20])
        accepted = {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}
    assert not list((folder / "store").glob("mos-*"))
    check_reopened(folder / "store", accepted)


def full_disk(folder: Path) -> None:
    """Check that a full disk costs nothing that was accepted, and that all goes on once there is room again."""
    rng = random.Random(8)
    accepted: dict[str, list[str]] = {}
    settings = {"store__journal_bytes": MIB, "store__flush_interval_s": 0.02}
    with open_fake(folder / "store", **settings) as memory:
        fill_until_full(memory, rng, accepted, 50)
        memory.wait_idle(PATIENCE_S)
        ballast = take_all_room(folder / "ballast")
        try:
            fill_until_full(memory, rng, accepted, 100_000)
        except StoreFullError as error:
            assert "free disk space" in str(error)
        else:
            raise AssertionError("there was room without end")
        assert memory.stats().unwritten
        check_order(memory, accepted)
        for _ in range(20):
            refused(memory)
        ballast.unlink()
        fill_until_full(memory, rng, accepted, 50)
        memory.wait_idle(PATIENCE_S)
        check_order(memory, accepted)
        assert memory.verify().ok
    check_reopened(folder / "store", accepted)


def full_at_opening(folder: Path) -> None:
    """Check that a store on a full disk can be opened and read, and works on once there is room again."""
    rng = random.Random(9)
    accepted: dict[str, list[str]] = {}
    with open_fake(folder / "store", workers=False, store__journal_bytes=MIB) as memory:
        fill_until_full(memory, rng, accepted, 200)
    ballast = take_all_room(folder / "ballast")
    with open_fake(folder / "store", store__journal_bytes=MIB) as memory:
        check_order(memory, accepted)
        check_found(memory, all_pages(memory)[::50], dense=False)
        until(lambda: memory.stats().workers["embedder"].state == "ready", "the embedder is ready")
        refused(memory)
        assert Manifest.load(StoreFolder(folder / "store")).segments == ()
        ballast.unlink()
        fill_until_full(memory, rng, accepted, 50)
        memory.wait_idle(PATIENCE_S)
        assert Manifest.load(StoreFolder(folder / "store")).segments
    check_reopened(folder / "store", accepted)


def refused(memory: MemoryPipeline) -> None:
    try:
        memory.add("dan", "a page that finds no room", "x" * 2 * MIB)
    except StoreFullError:
        return
    raise AssertionError("a page of 2 MiB was accepted where there is no room")


def fill_until_full(memory: MemoryPipeline, rng: random.Random, accepted: dict[str, list[str]], pages: int) -> None:
    """Add up to ``pages`` pages that can't be compressed much."""
    for _ in range(pages):
        user = rng.choice(("ann", "ben"))
        page_id = memory.add(user, f"number{rng.getrandbits(64)} " + rng.randbytes(1000).hex(" ", 8), "yes")
        accepted.setdefault(user, []).append(page_id)
        time.sleep(0.001)  # as callers do: in between, all that waits for pages looks at this one


def take_all_room(path: Path) -> Path:
    """Write a file until the disk is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (MIB, 4096, 1):
            try:
                while os.write(descriptor, bytes(size)) == size:
                    pass
            except OSError:
                continue
    finally:
        os.close(descriptor)
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    {"shm": small_shared_memory, "disk": full_disk, "opening": full_at_opening}[sys.argv[1]](Path(sys.argv[2]))
