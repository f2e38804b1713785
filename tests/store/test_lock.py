from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mos_pipeline.errors import StoreError, StoreLockedError
from mos_pipeline.store.lock import StoreLock, live_owner
from tests.store.common import run_python

HOLD = """
import sys, time
from pathlib import Path
from mos_pipeline.store.lock import StoreLock
lock = StoreLock.acquire(Path(sys.argv[1]), 0)
print("held", flush=True)
time.sleep(60)
"""

# The owner starts a child that inherits the descriptor and lives on for argv[2] seconds.
ORPHAN = """
import os, sys, time
from pathlib import Path
from mos_pipeline.store.lock import StoreLock
lock = StoreLock.acquire(Path(sys.argv[1]), 0)
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(float(sys.argv[2]))
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "LOCK"


@pytest.fixture
def orphan(path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """Pid of a dead owner whose child still holds the lock for ``request.param`` seconds."""
    owner = run_python(ORPHAN, path, request.param)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    yield owner.pid
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_second_pipeline_of_the_same_process_is_refused_at_once(path: Path) -> None:
    lock = StoreLock.acquire(path, 0)
    try:
        with pytest.raises(StoreLockedError, match="this process has this store open") as caught:
            StoreLock.acquire(path, 5)
        assert caught.value.pid == os.getpid()
        assert live_owner(path) == os.getpid()
    finally:
        lock.release()
    assert live_owner(path) is None
    StoreLock.acquire(path, 0).release()


def test_second_process_is_refused_at_once_and_told_the_owner(path: Path) -> None:
    owner = run_python(HOLD, path)
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=f"process {owner.pid} has this store open") as caught:
            StoreLock.acquire(path, 5)
        assert caught.value.pid == owner.pid
        assert live_owner(path) == owner.pid
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    StoreLock.acquire(path, 10).release()


@pytest.mark.parametrize("orphan", [0.5], indirect=True)
def test_orphaned_writer_is_waited_for(path: Path, orphan: int) -> None:
    assert live_owner(path) is None
    StoreLock.acquire(path, 60).release()


@pytest.mark.parametrize("orphan", [60], indirect=True)
def test_orphaned_writer_that_does_not_end_is_reported(path: Path, orphan: int) -> None:
    with pytest.raises(StoreLockedError, match=f"its owner, process {orphan}, is dead, but another") as caught:
        StoreLock.acquire(path, 0.1)
    assert caught.value.pid == orphan


def test_owner_that_was_killed_and_not_yet_waited_for_counts_as_dead(path: Path) -> None:
    owner = run_python(HOLD, path)
    assert owner.stdout is not None
    owner.stdout.readline()
    owner.kill()
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # now a zombie
    assert live_owner(path) is None
    owner.wait()
    owner.stdout.close()


@pytest.mark.parametrize("text", ["{pid} 1", "0 0", "999999999 0", "", "junk", "-1 5", "1 2 3", "²² 1"])
def test_pid_used_again_or_unreadable_text_does_not_count_as_a_live_owner(path: Path, text: str) -> None:
    path.write_text(text.format(pid=os.getpid()))
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    timer = threading.Timer(0.1, fcntl.flock, (descriptor, fcntl.LOCK_UN))
    timer.start()
    try:
        StoreLock.acquire(path, 60).release()
    finally:
        timer.join()
        os.close(descriptor)


def test_release_frees_the_store_although_a_forked_child_keeps_the_descriptor(path: Path) -> None:
    lock = StoreLock.acquire(path, 0)
    copy = os.dup(lock.fileno())
    lock.release()
    lock.release()
    StoreLock.acquire(path, 0).release()
    os.close(copy)
    with pytest.raises(ValueError, match="released"):
        lock.fileno()


def test_release_in_a_forked_child_leaves_the_owner_in_possession(path: Path) -> None:
    lock = StoreLock.acquire(path, 0)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(StoreLockedError):
        StoreLock.acquire(path, 0)
    assert live_owner(path) == os.getpid()
    lock.release()


def test_descriptor_is_not_inherited_unless_it_is_handed_on(path: Path) -> None:
    lock = StoreLock.acquire(path, 0)
    assert not os.get_inheritable(lock.fileno())
    lock.release()


def test_lock_that_can_not_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not be opened"):
        StoreLock.acquire(tmp_path / "missing" / "LOCK", 0)
    (tmp_path / "LOCK").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="could not be opened"):
        StoreLock.acquire(tmp_path / "LOCK", 0)


def test_one_of_many_that_try_at_once_gets_it(path: Path) -> None:
    got: list[StoreLock] = []
    refused: list[StoreLockedError] = []

    def attempt() -> None:
        try:
            got.append(StoreLock.acquire(path, 10))
        except StoreLockedError as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    assert {error.pid for error in refused} == {os.getpid()}
    got[0].release()
