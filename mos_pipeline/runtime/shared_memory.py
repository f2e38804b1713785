"""Blocks of memory shared between processes, and the one place for CPython's private names about them.

A block belongs to the process that created it; only the owner unlinks it. Others attach by name through their own
``shm_open`` and ``mmap``, since attaching through ``multiprocessing.shared_memory`` would register the block with a
resource tracker that destroys it when the attaching process ends. A name is ``mos-<pid>-<start>-<random>`` for a block
in /dev/shm, and an absolute path for a file-backed one. Each block carries its owner's ``flock`` for as long as it is
mapped, so that ``sweep`` can tell leftovers of dead owners from living blocks, in other containers too.

The semaphores of a pipeline's queues lie in /dev/shm, too, and stay there where their owner is killed together with its
resource tracker. They hold no lock, so their names tell the process-id namespace as well, and ``sweep`` looks at its
own only.
"""

from __future__ import annotations

import _posixshmem  # type: ignore[import-not-found]
import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING

from mos_pipeline.errors import StoreFullError

if TYPE_CHECKING:  # numpy is loaded by who maps a block: the writer's process, which passes here too, never does
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

__all__ = ["SHM_FOLDER", "Slab", "attach", "attach_living", "semaphore_prefix", "sweep"]

SHM_FOLDER = Path("/dev/shm")  # noqa: S108  (the kernel's folder, not a temporary file's)
PREFIX = "mos-"
SEMAPHORE = "sem."  # what the C library puts before a semaphore's name


class _Memory(SharedMemory):
    def __del__(self) -> None:
        # Dropped without close(), beside a view that lives a moment longer: the mapping ends with that view.
        with contextlib.suppress(BufferError):
            super().__del__()


class Slab:
    """A block that this process owns.

    Attributes:
        name: what ``attach`` takes; empty for a private block.
        data: its bytes, uint8 (size,), zero at first. Drop every view of it before ``close``.
    """

    def __init__(self, name: str, mapping: SharedMemory | mmap.mmap) -> None:
        self.name = name
        self._mapping = mapping
        self.data = _bytes_of(memoryview(mapping.buf or b"") if isinstance(mapping, SharedMemory) else mapping)

    @classmethod
    def create(cls, size: int) -> Slab:
        """Return a new block of ``size`` bytes in /dev/shm; its space is reserved, so writing can't fail later.

        Raises:
            StoreFullError: /dev/shm is missing or too small.
        """
        try:
            memory = _Memory(_new_name(), create=True, size=size)
        except OSError as error:
            raise _full(str(SHM_FOLDER), size, error) from None
        try:
            _reserve(memory._fd, size)  # type: ignore[attr-defined]
        except OSError as error:
            memory.close()
            memory.unlink()
            raise _full(str(SHM_FOLDER), size, error) from None
        # The mapping holds a duplicate of its own: a store of a million rows would else run out of descriptors.
        os.close(memory._fd)  # type: ignore[attr-defined]
        memory._fd = -1  # type: ignore[attr-defined]
        return cls(memory.name, memory)

    @classmethod
    def private(cls, size: int) -> Slab:
        """Return a block of ``size`` bytes that no other process can attach; it takes memory where it is written."""
        return cls("", mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    @classmethod
    def create_file(cls, size: int, folder: Path) -> Slab:
        """Return a new block of ``size`` bytes in a file of ``folder``, for where /dev/shm is too small.

        Raises:
            StoreFullError: the disk is full, or the folder can't be written.
        """
        path = folder.resolve() / _new_name()
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _full(str(folder), size, error) from None
        try:
            _reserve(fd, size)
            return cls(str(path), mmap.mmap(fd, size))
        except OSError as error:
            path.unlink()
            raise _full(str(folder), size, error) from None
        finally:
            os.close(fd)

    def close(self) -> None:
        """Unmap the block and remove its name; processes that attached it keep their mapping. Idempotent.

        Raises:
            BufferError: a view of ``data`` is still alive; the name is removed all the same.
        """
        mapping, name, self.name = self._mapping, self.name, ""
        if name and isinstance(mapping, SharedMemory):
            mapping.unlink()
        elif name:
            Path(name).unlink(missing_ok=True)
        self.data = _bytes_of(b"")
        mapping.close()


def attach(name: str) -> Bytes:
    """Return the bytes of another process's block, uint8 (size,), writable; unmapped when the last view is gone.

    Raises:
        FileNotFoundError: its owner has closed it.
    """
    fd = _open(name, os.O_RDWR)
    try:
        return _bytes_of(mmap.mmap(fd, 0))
    finally:
        os.close(fd)


def attach_living(name: str) -> Bytes | None:
    """Return the bytes of a block, as ``attach``, but read-only; None where its owner is dead.

    Raises:
        FileNotFoundError: its owner has closed it.
    """
    fd = _open(name, os.O_RDONLY)
    try:
        if _unlocked(fd):
            return None
        return _bytes_of(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(fd)


def _bytes_of(memory: mmap.mmap | memoryview | bytes) -> Bytes:
    import numpy as np

    return np.frombuffer(memory, np.uint8)


def _open(name: str, flags: int) -> int:
    if os.sep in name:
        return os.open(name, flags | os.O_CLOEXEC)
    fd: int = _posixshmem.shm_open(f"/{name}", flags, mode=0o600)
    return fd


def _unlocked(fd: int) -> bool:
    """Whether the lock that a block's owner holds while it lives is gone; that of a moment's look is taken for it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return False
    return True


def sweep(folders: Iterable[Path] = (SHM_FOLDER,)) -> list[str]:
    """Remove the blocks in ``folders``, and semaphores, whose owners are dead, and return their names.

    What this user may not open is left alone.
    """
    found = [path for folder in folders if folder.is_dir() for path in folder.glob(f"{PREFIX}*-*-*")]
    found += SHM_FOLDER.glob(f"{SEMAPHORE}{PREFIX}*-*-{_pid_namespace()}-*")
    return [path.name for path in found if not _owner_lives(path.name) and _unlink_unless_locked(path)]


def semaphore_prefix() -> str:
    """Return what the names of this process's semaphores begin with."""
    return f"{_owner()}-{_pid_namespace()}"


def _new_name() -> str:
    return f"{_owner()}-{os.urandom(4).hex()}"


def _owner() -> str:
    pid = os.getpid()
    return f"{PREFIX}{pid}-{_start_time(pid)}"


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (field 22 of /proc/<pid>/stat); 0 where unknown."""
    try:
        # The second field is the command in parentheses, and may hold spaces and parentheses itself.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return 0


def _reserve(fd: int, size: int) -> None:
    # Without its pages reserved, the first write to a full /dev/shm is a SIGBUS.
    os.posix_fallocate(fd, 0, size)
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _owner_lives(name: str) -> bool:
    """Is the process that ``name`` tells of alive? A name that is none of ours counts as alive."""
    pid, start, _ = name.removeprefix(SEMAPHORE).removeprefix(PREFIX).split("-", 2)
    if not (pid.isdecimal() and start.isdecimal()):
        return True
    return Path(f"/proc/{pid}").exists() and int(start) in (0, _start_time(int(pid)))


def _unlink_unless_locked(path: Path) -> bool:
    # Seen from another process-id namespace a living owner looks dead; its lock tells.
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _full(where: str, size: int, error: OSError) -> StoreFullError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
        return StoreFullError(
            f"{where}: a block of {size} bytes can't be created ({error.strerror}); make it a writable folder"
        )
    return StoreFullError(
        f"{where}: no room for a block of {size} bytes ({error.strerror}); make it larger"
        " (containers: --shm-size or an emptyDir with medium Memory) or free space there"
    )
