"""Paths of a store, and private files in it.

Folders are made with mode 0700, files with 0600; a symbolic link is never followed where a file is written.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mos_pipeline.errors import StoreDamagedError, StoreError, StoreFullError

__all__ = [
    "Damage",
    "StoreFolder",
    "disk_errors",
    "fsync_ancestors",
    "fsync_folder",
    "keep_aside",
    "move_aside",
    "numbered",
    "open_private",
    "store_error",
    "write_all",
    "write_private",
]

COPY_BYTES = 1 << 20
# EFBIG is the limit that RLIMIT_FSIZE or the file system sets on one file: no room either, with the same cure.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of a folder that this user can't have made another in, or of a file system that knows no flushing of folders.
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOTSUP)


class Damage(NamedTuple):
    """Bytes of a file that can't be used, and why."""

    path: Path
    offset: int
    length: int
    reason: str


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """Where things lie in a store."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The file that names what is valid."""
        return self.root / "MANIFEST"

    @property
    def lock(self) -> Path:
        """The file whose lock is the ownership of the store."""
        return self.root / "LOCK"

    @property
    def journals(self) -> Path:
        """The folder of the journals."""
        return self.root / "journal"

    @property
    def segments(self) -> Path:
        """The folder of the segments."""
        return self.root / "segments"

    @property
    def aside(self) -> Path:
        """The folder of bytes that could not be read, kept for whoever wants to look into them."""
        return self.root / "aside"

    @property
    def pins(self) -> Path:
        """The folder of the files that readers lock, one for each generation of the store."""
        return self.root / "pins"

    @property
    def models(self) -> Path:
        """The folder of the static model that its vectors were made with; only in stores that have one."""
        return self.root / "models"

    @property
    def vectors(self) -> Path:
        """The file that tells readers in which blocks of shared memory the owner has the vectors."""
        return self.root / "VECTORS"

    @property
    def socket(self) -> Path:
        """The socket on which the owner answers; only while it is open."""
        return self.root / "SOCKET"

    def journal(self, number: int) -> Path:
        """Return the path of a journal."""
        return self.journals / f"{number:08d}.journal"

    def segment(self, number: int) -> Path:
        """Return the path of a segment."""
        return self.segments / f"{number:08d}.segment"

    def pin(self, generation: int) -> Path:
        """Return the path of the file that readers of a generation lock."""
        return self.pins / f"{generation:08d}"

    def has_manifest(self) -> bool:
        """Return whether there is a MANIFEST.

        Raises:
            StoreDamagedError: there is none, and segments or journals are left.
            StoreError: the folder can't be read, or is none.
        """
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root}: it is no folder; name another place for the store")
        if self.manifest.exists():
            return True
        kinds = ((self.segments, ".segment"), (self.journals, ".journal"))
        left = [path for place, suffix in kinds if place.is_dir() for _, path in numbered(place, suffix)]
        if left:
            raise StoreDamagedError(
                f"{self.manifest}: it is missing, though {left[0]} is there; restore it from a backup of the store"
            )
        return False

    def create(self) -> None:
        """Make the folder and its subfolders where they are missing.

        The mode of a root that is there already stays as its maker chose it: all that lies in it is private.

        Raises:
            StoreError: a folder can't be made, or something else is in its place.
        """
        for path in (self.root, self.journals, self.segments, self.aside, self.pins):
            with disk_errors(path, "the folder could not be made"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)


def store_error(error: OSError, path: Path, what: str) -> StoreError:
    """Return the library's error for ``error``, which kept ``what`` from being done to ``path``."""
    if error.errno in FULL:
        mend = "free disk space, or raise the quota or the limit of file sizes; nothing that was accepted is lost"
        return StoreFullError(f"{path}: {what}, there is no room left ({error.strerror}); {mend}")
    return StoreError(f"{path}: {what} ({error.strerror or error}); check the path, its rights and the disk")


@contextmanager
def disk_errors(path: Path, what: str) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError.

    Raises:
        StoreFullError: for ENOSPC, EDQUOT and EFBIG.
        StoreError: for the others.
    """
    try:
        yield
    except OSError as error:
        raise store_error(error, path, what) from error


def open_private(path: Path, flags: int) -> int:
    """Open ``path`` with ``flags``, never through a symbolic link nor waiting; a file that is made by it has mode 0600.

    Returns:
        A descriptor that child processes do not inherit.

    Raises:
        OSError: as from ``os.open``; ELOOP for a symbolic link.
    """
    # Opening a named pipe would wait for its other end; of files nobody is kept waiting anyway.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def fsync_folder(path: Path) -> None:
    """Make the names in ``path`` durable.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_ancestors(path: Path) -> None:
    """Make the names of ``path`` and of the folders above it durable, whoever made them.

    Raises:
        OSError: the disk failed.
    """
    for folder in path.parents:
        try:
            fsync_folder(folder)
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise
            break


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``, however many calls it takes.

    Raises:
        OSError: part of it may have been written.
    """
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def write_private(path: Path, data: bytes, flags: int) -> None:
    """Write a file that only its owner reads, and flush it; ``flags``: O_TRUNC for one in its place, O_EXCL for a new.

    Raises:
        OSError: part of it may have been written.
    """
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | flags)
    try:
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def numbered(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    """Return the files ``<number><suffix>`` in ``folder`` with their numbers, ascending; other names are ignored.

    Raises:
        StoreError: the folder can't be read.
    """
    with disk_errors(folder, "the folder could not be read"):
        files = [path for path in folder.iterdir() if path.suffix == suffix]
    return sorted((int(path.stem), path) for path in files if path.stem.isascii() and path.stem.isdecimal())


def keep_aside(folder: StoreFolder, damage: Damage) -> Path:
    """Copy damaged bytes to the folder ``aside``, durably, and return the copy's path.

    Its name is made of file, offset and CRC-32, so that the same bytes are kept once, however often they are met.

    Raises:
        StoreError: the copy could not be made.
    """
    partial = folder.aside / f"{damage.path.name}.partial"
    with disk_errors(partial, "damaged bytes could not be kept aside"):
        checksum = _copy(damage, partial)
        kept = folder.aside / f"{damage.path.name}-{damage.offset}-{checksum:08x}"
        partial.replace(kept)
        fsync_folder(folder.aside)
    return kept


def _copy(damage: Damage, target: Path) -> int:
    checksum, done = 0, 0
    source = open_private(damage.path, os.O_RDONLY)
    try:
        copy = open_private(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            while chunk := os.pread(source, min(COPY_BYTES, damage.length - done), damage.offset + done):
                write_all(copy, chunk, done)
                checksum, done = zlib.crc32(chunk, checksum), done + len(chunk)
            os.fsync(copy)
        finally:
            os.close(copy)
    finally:
        os.close(source)
    return checksum


def move_aside(folder: StoreFolder, path: Path) -> Path:
    """Move a whole file to the folder ``aside`` under a name that is free there, and return its new path.

    Raises:
        StoreError: it could not be moved.
    """
    copies = 0
    while (kept := folder.aside / f"{path.name}-whole-{copies}").exists():
        copies += 1
    with disk_errors(path, "the file could not be moved aside"):
        path.rename(kept)
        fsync_folder(folder.aside)
        fsync_folder(path.parent)
    return kept
