"""Ownership of a store: a file lock that the owner and its writer process hold together.

``flock`` belongs to the open file, not to the process: a writer that inherited the descriptor keeps the store locked
after its owner's death, for as long as it may still write. The file's text names the owner by its process id and the
time it was started at, since ids are used again.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import NamedTuple

from mos_pipeline.errors import StoreLockedError
from mos_pipeline.store.folder import disk_errors, open_private, write_all

__all__ = ["StoreLock", "live_owner"]

POLL_S = 0.02
DEAD_STATES = ("Z", "X")

# The text keeps its length, blank where nobody owns the store: emptied, it would need a block of a disk that may have
# become full.
OWNER_BYTES = 64


class _Owner(NamedTuple):
    """A process: its id, and its start in clock ticks after the machine's (0 where that is not known)."""

    pid: int
    started: int


class StoreLock:
    """The held lock of a store."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._pid = os.getpid()

    @classmethod
    def acquire(cls, path: Path, timeout_s: float) -> StoreLock:
        """Lock the file ``path``, made where it is missing, and write this process into it.

        A live owner, this process among them, refuses at once. Where the owner is dead and the lock still held, by a
        writer process that outlived it, this waits for at most ``timeout_s`` seconds.

        Raises:
            StoreLockedError: the store belongs to another, whose pid the error carries.
            StoreError: the file can't be opened or locked.
        """
        deadline = time.monotonic() + timeout_s
        with disk_errors(path, "the lock could not be opened"):
            descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            while not _try_lock(path, descriptor):
                _check_owner(path, _read_owner(descriptor), time.monotonic() >= deadline)
                time.sleep(POLL_S)
            _write_owner(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def fileno(self) -> int:
        """Return the descriptor; a process that inherits it holds the lock too."""
        if self._descriptor is None:
            raise ValueError("the lock was released")
        return self._descriptor

    def release(self) -> None:
        """Give the store up, for every process that holds the descriptor: only once the writer process has ended.

        In a forked child of the owner it closes the child's copy and leaves the owner's lock alone.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if os.getpid() == self._pid:
                os.pwrite(descriptor, b" " * OWNER_BYTES, 0)
                # Not by closing alone: a child that the caller forked may hold a copy for as long as it lives.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


def live_owner(path: Path) -> int | None:
    """Return the pid that the lock file ``path`` names if that process is alive; reads only, and locks nothing."""
    try:
        descriptor = open_private(path, os.O_RDONLY)
        try:
            owner = _read_owner(descriptor)
        finally:
            os.close(descriptor)
    except OSError:  # there is none, or something else in its place
        return None
    return owner.pid if owner and _alive(owner) else None


def _try_lock(path: Path, descriptor: int) -> bool:
    with disk_errors(path, "the store could not be locked"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _check_owner(path: Path, owner: _Owner | None, late: bool) -> None:
    """Refuse if the owner lives, or if it is too late to wait for the one who holds the lock in its place."""
    if owner and _alive(owner):
        who = "this process" if owner.pid == os.getpid() else f"process {owner.pid}"
        raise StoreLockedError(f"{path.parent}: {who} has this store open; close it there first", owner.pid)
    if late:
        who = f"its owner, process {owner.pid}, is dead" if owner else "its owner is not known"
        mend = f"wait until that one ends, or end it (`fuser {path}` names it)"
        raise StoreLockedError(
            f"{path.parent}: {who}, but another process still holds the store; {mend}", owner.pid if owner else None
        )


def _read_owner(descriptor: int) -> _Owner | None:
    """Return the owner; None for an empty or unreadable text, as it is for a moment after the lock was taken."""
    fields = os.pread(descriptor, OWNER_BYTES, 0).split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    return _Owner(int(fields[0]), int(fields[1]))


def _write_owner(path: Path, descriptor: int) -> None:
    pid = os.getpid()
    state = _process_state(pid)
    with disk_errors(path, "the owner could not be written"):
        write_all(descriptor, (b"%d %d" % (pid, state[1] if state else 0)).ljust(OWNER_BYTES), 0)


def _alive(owner: _Owner) -> bool:
    if owner.pid <= 0:
        return False
    if not Path("/proc/self/stat").exists():
        return _answers(owner.pid)
    state = _process_state(owner.pid)
    return state is not None and state[0] not in DEAD_STATES and owner.started in (0, state[1])


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _process_state(pid: int) -> tuple[str, int] | None:
    """Return a process's state letter and start time from /proc/<pid>/stat (proc(5), fields 3 and 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name, field 2, is in parentheses and may itself hold blanks and parentheses.
    fields = text[text.rindex(b")") + 1 :].split()
    return fields[0].decode(), int(fields[19])
