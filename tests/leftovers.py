"""A fixture that proves that a test cleaned up: no child, no block of shared memory, no open file is left."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from tests.support import children, own_blocks, signal_stack_kept

__all__ = ["leftovers", "nothing_left", "nothing_left_by_module", "present"]

GRACE_S = 30.0  # the machine may be busy


def open_files() -> dict[str, str]:
    """Return this process's descriptors and what they are."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue  # the descriptor of this very listing
    return found


def present() -> set[str]:
    """Return what is there: open files, children, blocks of shared memory and threads."""
    # tqdm's monitor, begun where a test loads the real model in this process, stays as long as the process.
    allowed = {threading.main_thread().name, "tqdm_monitor"}
    threads = [thread for thread in threading.enumerate() if thread.name not in allowed]
    # matplotlib keeps its fonts open as long as the process lives.
    files = {name: target for name, target in open_files().items() if "/mpl-data/fonts/" not in target}
    return {
        *(f"file {name} -> {target}" for name, target in files.items()),
        *(f"child {pid} {command}" for pid, command in children().items()),
        *(f"block {name}" for name in own_blocks()),
        *(f"thread {thread.name} {thread.native_id}" for thread in threads),
    }


def leftovers(before: set[str]) -> set[str]:
    """Return what is there now and was not before, and stays when garbage is collected."""
    found = present() - before
    if found:  # only then: with a model's libraries loaded a collection takes a third of a second
        gc.collect()
        found = present() - before
    return found


def _nothing_left() -> Iterator[None]:
    resource_tracker.ensure_running()  # it lives as long as the test run, and holds one pipe
    before = present()
    with signal_stack_kept():
        yield
    deadline = time.monotonic() + GRACE_S
    while (left := leftovers(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, "left behind: " + "; ".join(sorted(left))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a child, a block, an open file or a thread."""
    yield from _nothing_left()


@pytest.fixture(autouse=True, scope="module")
def nothing_left_by_module() -> Iterator[None]:
    """Fail the last test of a module whose own fixtures leave any of these."""
    yield from _nothing_left()
