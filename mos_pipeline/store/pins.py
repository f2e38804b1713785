"""Which generations of a store readers still look at, and so which replaced segments may be deleted.

A reader holds a shared ``flock`` on the file of the generation that it reads. Its death lets go of it. Whoever wants to
delete a segment asks for the exclusive lock of every older generation first. A reader that was late (MANIFEST was
replaced between its look at it and its lock) sees so by a second look, and begins anew: it never reads from a
generation that it did not have pinned while that was the newest.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from mos_pipeline.errors import StoreError
from mos_pipeline.store.folder import StoreFolder, disk_errors, fsync_folder, open_private
from mos_pipeline.store.manifest import Manifest

__all__ = ["Pin", "make_pin", "without_drafts", "without_unpinned"]


class Pin:
    """A held generation: the segments that its MANIFEST names stay where they are.

    Attributes:
        manifest: the newest, at the moment when it was pinned.
    """

    def __init__(self, manifest: Manifest, descriptor: int) -> None:
        """Use ``take``."""
        self.manifest = manifest
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: StoreFolder) -> Self:
        """Pin the newest generation.

        Raises:
            StoreError: there is no MANIFEST, or its generation can't be pinned.
        """
        while True:
            generation = Manifest.load(folder).generation
            path = folder.pin(generation)
            descriptor = _open_pin(path)
            try:
                if _lock(path, descriptor, fcntl.LOCK_SH):
                    manifest = Manifest.load(folder)
                    if manifest.generation == generation and _is_at(path, descriptor):
                        kept, descriptor = descriptor, -1
                        return cls(manifest, kept)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Let the generation go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _open_pin(path: Path) -> int:
    """Open the file that the owner made, or make it, where the owner's library was older."""
    try:
        return open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"{path}: the store's generation could not be pinned ({error.strerror})") from error
    with disk_errors(path, "the store's generation could not be pinned; open the store once to write"):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return open_private(path, os.O_RDONLY | os.O_CREAT)


def _lock(path: Path, descriptor: int, mode: int) -> bool:
    """Return whether the file could be locked: only that of an older generation is ever locked exclusively."""
    with disk_errors(path, "the store's generation could not be pinned"):
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def make_pin(folder: StoreFolder, generation: int) -> None:
    """Make the file that readers lock, so that they need no right to write.

    Raises:
        StoreError: it can't be made.
    """
    path = folder.pin(generation)
    with disk_errors(path, "the file that readers lock could not be made"):
        os.close(open_private(path, os.O_RDONLY | os.O_CREAT))


def without_drafts(folder: StoreFolder, manifest: Manifest) -> Manifest:
    """Delete drafts, which hold nothing that is not in a valid segment too; return the MANIFEST to save.

    Raises:
        StoreError: one can't be deleted.
    """
    _delete(folder, manifest.drafts)
    return manifest.without_drafts()


def without_unpinned(folder: StoreFolder, manifest: Manifest) -> Manifest:
    """Delete replaced segments that no reader can need; return the MANIFEST to save.

    Raises:
        StoreError: one can't be deleted.
    """
    if not manifest.retired:
        return manifest
    oldest = _oldest_pinned(folder, manifest.generation)
    removed = [segment.number for segment in manifest.retired if segment.generation < oldest]
    _delete(folder, removed)
    return manifest.without_retired(removed)


def _delete(folder: StoreFolder, numbers: Iterable[int]) -> None:
    paths = [folder.segment(number) for number in numbers]
    for path in paths:
        with disk_errors(path, "it could not be deleted"):
            path.unlink(missing_ok=True)
    if paths:
        # Before MANIFEST stops naming them: a file that came back after a power cut would be taken for a lost segment.
        with disk_errors(folder.segments, "deletions could not be made durable"):
            fsync_folder(folder.segments)


def _oldest_pinned(folder: StoreFolder, newest: int) -> int:
    """Return the oldest generation that a reader holds; ``newest``, where none holds an older one."""
    with disk_errors(folder.pins, "the folder could not be read"):
        generations = sorted(int(path.name) for path in folder.pins.iterdir() if path.name.isdecimal())
    for generation in generations:
        if generation >= newest or not _discard_pin(folder.pin(generation)):
            return min(generation, newest)
    return newest


def _discard_pin(path: Path) -> bool:
    """Remove the file of an older generation; return False where a reader holds it."""
    with disk_errors(path, "it could not be locked and removed"):
        descriptor = open_private(path, os.O_RDONLY)
        try:
            free = _lock(path, descriptor, fcntl.LOCK_EX)
            if free:
                path.unlink()  # while it is locked: who opened it before sees that it is gone, and looks again
        finally:
            os.close(descriptor)
    return free
