"""Cores, memory, shared memory, descriptors, and the disk under the store."""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from mos_pipeline.config import Config
from mos_pipeline.doctor.finding import Area, Finding, note, ok, problem
from mos_pipeline.runtime.shared_memory import SHM_FOLDER

__all__ = ["check_disk", "check_machine", "free_bytes"]

MIB = 1 << 20
MODEL_BYTES = 1 << 30  # torch, the model and the other processes, about
FILES = 256  # pipes and queues of the workers, segments, blocks of vectors
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "afs"})


def check_machine(config: Config) -> Iterator[Finding]:
    """Look at what the processes need of the machine."""
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        yield note(Area.MACHINE, "cores", f"{cores}", "the model and your own process share it; two or more are better")
    else:
        yield ok(Area.MACHINE, "cores", f"{cores}")
    yield _memory()
    yield _shared_memory(config)
    yield _descriptors()


def _memory() -> Finding:
    available = min(_available(), _left_in_group())
    told = f"{available // MIB:,} MiB available"
    if available < MODEL_BYTES:
        mend = f"the model and its libraries take about {MODEL_BYTES // MIB:,} MiB; free some, or raise the limit"
        return note(Area.MACHINE, "memory", told, mend)
    return ok(Area.MACHINE, "memory", told)


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 62


def _left_in_group() -> int:
    """Return the bytes that the control group, a container's mostly, leaves; very many where it sets no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # there is none, or it says "max"
        return 1 << 62


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write on the disk of ``path``.

    Raises:
        OSError: it is not there.
    """
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def _shared_memory(config: Config) -> Finding:
    what, slab = str(SHM_FOLDER), config.embedding.slab_bytes
    try:
        free = free_bytes(SHM_FOLDER)
    except OSError as error:
        return note(Area.MACHINE, what, f"can't be looked at ({error.strerror})", "vectors lie in files of the store")
    told = f"{free // MIB:,} MiB free"
    if free < 16 * slab:
        mend = f"vectors that find no room there lie in files of the store; a container takes --shm-size, {told} now"
        return note(Area.MACHINE, what, told, mend)
    return ok(Area.MACHINE, what, told)


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        mend = f"raise it to {FILES} or more (ulimit -n; the hard limit is {hard})"
        return problem(Area.MACHINE, "open files", f"at most {soft}", mend)
    return ok(Area.MACHINE, "open files", f"at most {soft:,}")


def check_disk(root: Path, config: Config) -> Iterator[Finding]:
    """Look at the disk that holds the store, or will."""
    folder = next(path for path in (root, *root.parents) if path.is_dir())
    yield _room(folder, config)
    kind = _kind(folder)
    if kind in REMOTE:
        mend = "locks and mapped files over a network are not to be trusted with the journal; use a local disk"
        yield problem(Area.MACHINE, "file system", kind, mend)
    else:
        yield _journal_can_be_made(folder, kind)


def _room(folder: Path, config: Config) -> Finding:
    free = free_bytes(folder)
    told, needed = f"{free // MIB:,} MiB free", 4 * config.store.journal_bytes + config.store.segment_bytes
    if free < needed:
        mend = f"free some: journals and a segment take {needed // MIB:,} MiB, and the pages come on top"
        return problem(Area.MACHINE, "disk", told, mend)
    if free < config.backlog.max_bytes:
        most = f"{config.backlog.max_bytes // MIB:,} MiB"
        mend = f"the backlog may grow to {most} (backlog.max_bytes); lower it, or free some"
        return note(Area.MACHINE, "disk", told, mend)
    return ok(Area.MACHINE, "disk", told)


def _kind(folder: Path) -> str:
    """Return the type of the file system that ``folder`` lies in, by the longest mount point over it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    over = [(len(point), kind) for _, point, kind, *_ in mounts if folder.is_relative_to(point.replace("\\040", " "))]
    return max(over, default=(0, "unknown"))[1]


def _journal_can_be_made(folder: Path, kind: str) -> Finding:
    """Do what a journal does, in a file without a name, of which nothing stays."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        return problem(Area.MACHINE, "file system", f"{folder}: {error.strerror}", "let this user write there")
    except OSError as error:
        found = f"{kind}; whether it allocates and maps files could not be tried ({error.strerror})"
        mend = "nothing, where opening a store works: it makes its first journal then"
        return note(Area.MACHINE, "file system", found, mend)
    try:
        os.posix_fallocate(descriptor, 0, mmap.PAGESIZE)
        with mmap.mmap(descriptor, mmap.PAGESIZE) as mapping:
            mapping[0] = 1
        os.fsync(descriptor)
    except OSError as error:
        mend = "the journal needs files that are allocated, mapped and flushed; use another file system"
        return problem(Area.MACHINE, "file system", f"{kind}: {error.strerror}", mend)
    finally:
        os.close(descriptor)
    return ok(Area.MACHINE, "file system", f"{kind}: allocates, maps and flushes files")
