"""One owner at a time: a second one is refused, and the orphaned writer of a dead one is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.errors import StoreLockedError
from tests.faults.common import check_order, check_reopened, fill, nothing_left, until
from tests.faults.processes import ROOT, driver, noted, session
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

REFUSED = """
import sys
from mos_pipeline.errors import StoreLockedError
from tests.support import open_fake
try:
    open_fake(sys.argv[1], workers=False)
except StoreLockedError as error:
    sys.exit(f"{error.pid} {error}")
"""


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    with nothing_left(), open_fake(tmp_path / "store") as memory:
        fill(memory, 20)
        with pytest.raises(StoreLockedError, match="this process") as refused:
            open_fake(tmp_path / "store")
        assert refused.value.pid == os.getpid()
        other = subprocess.run(
            [sys.executable, "-c", REFUSED, tmp_path / "store"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert other.returncode == 1
        assert other.stderr.startswith(f"{os.getpid()} ")
        assert f"process {os.getpid()} has this store open" in other.stderr
        accepted = {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}
    check_reopened(tmp_path / "store", accepted)


def holders(lock: Path, leader: int) -> list[int]:
    """Return the processes of a session, but for its leader, that have the lock file open."""
    found = []
    for pid in session(leader):
        try:
            links = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue  # it ended meanwhile
        if lock in links and pid != leader:
            found.append(pid)
    return found


def test_an_orphaned_writer_is_waited_for(tmp_path: Path) -> None:
    store, notes = tmp_path / "store", tmp_path / "notes"
    with driver(store, notes, seed=1, rest=True) as process:
        until(notes.exists, "it is at work")
        # Between fork and exec any child has every file of its parent; the writer alone keeps the lock.
        until(lambda: len(session(process.pid)) == 5, "all its children are there, the resource tracker among them")
        until(lambda: len(holders(store / "LOCK", process.pid)) == 1, "the writer alone has the lock")
        (writer,) = holders(store / "LOCK", process.pid)
        os.kill(writer, signal.SIGSTOP)
        process.kill()
        process.wait()
        with pytest.raises(StoreLockedError, match="is dead, but another process still holds the store") as refused:
            open_fake(store, workers=False, store__lock_timeout_s=0.2)
        assert refused.value.pid == process.pid
        opened: list[MemoryPipeline] = []
        waiting = threading.Thread(target=lambda: opened.append(open_fake(store, store__lock_timeout_s=90.0)))
        waiting.start()
        waiting.join(0.5)
        assert not opened
        os.kill(writer, signal.SIGCONT)
        waiting.join()
        with opened[0] as memory:
            check_order(memory, noted(notes, {}), unnoted=1)
        until(lambda: not session(process.pid), "its children are gone by themselves")


def test_a_worker_deep_in_its_work_goes_with_its_parent(tmp_path: Path) -> None:
    store, notes = tmp_path / "store", tmp_path / "notes"
    with driver(store, notes, 2, rest=True, MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT="100000") as process:
        until(notes.exists, "it is at work")
        until(lambda: len(session(process.pid)) == 5, "all its children are there, the resource tracker among them")
        time.sleep(1.0)  # the embedder measures its model by now, and would do so for hours
        process.kill()
        process.wait()
        until(lambda: not session(process.pid), "its children are gone by themselves")
