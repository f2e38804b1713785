"""Every test proves that it cleaned up: no child, no block of shared memory, no open file is left."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import children, own_blocks

GRACE_S = 5.0


def open_files() -> dict[str, str]:
    """Return this process's descriptors and what they are; those of the resource tracker and of pytest stay."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)
        except OSError:
            continue  # the descriptor of this very listing
    return found


def leftovers(before: dict[str, str]) -> list[str]:
    """Return what is there now and was not before."""
    gc.collect()
    new = [f"file {name} -> {target}" for name, target in open_files().items() if name not in before]
    new = [line for line in new if "pipe:" not in line or threading.active_count() == 1]
    named = [f"child {pid} {command}" for pid, command in children().items()]
    return new + named + [f"block {name}" for name in own_blocks()]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a child, a block or an open file."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it lives as long as the test run, and holds one pipe
    before = open_files()
    yield
    deadline = time.monotonic() + GRACE_S
    while (left := leftovers(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, "left behind: " + "; ".join(left)
