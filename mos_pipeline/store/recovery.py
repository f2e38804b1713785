"""Opening a store: taking it over from whatever its last owner left.

Nothing that can be read is lost. What can't be read is copied to the folder ``aside`` and reported, and costs itself
alone. The writer process cuts the last segment's torn tail; here the files of segments are only read.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from mos_pipeline.config import Store
from mos_pipeline.errors import StoreDamagedError, StoreError
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.folder import (
    Damage,
    StoreFolder,
    disk_errors,
    fsync_ancestors,
    fsync_folder,
    keep_aside,
    move_aside,
    numbered,
    open_private,
    store_error,
)
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.lock import StoreLock
from mos_pipeline.store.manifest import FORMAT, Manifest
from mos_pipeline.store.pins import make_pin, without_drafts, without_unpinned
from mos_pipeline.store.scanning import Damaged, Frame, Torn
from mos_pipeline.store.segments import FrameAddress, SegmentReader

__all__ = ["JournaledPage", "OpenStore", "StoredFrame", "open_store"]

logger = logging.getLogger(__name__)


class StoredFrame(NamedTuple):
    """A valid frame of a segment; ``body`` is unpacked, empty for derived data; ``generation`` is its vectors'."""

    kind: FrameKind
    last_page: int
    body: bytes
    address: FrameAddress
    generation: int


class JournaledPage(NamedTuple):
    """A record of an old journal."""

    seq: int
    body: bytes
    journal: Journal
    offset: int


def open_store(path: str | os.PathLike[str], config: Store, *, create: bool = True) -> OpenStore:
    """Take the store in the folder ``path``, made where there is none and ``create`` allows it.

    Raises:
        StoreLockedError: it belongs to another process, or to another pipeline of this one.
        StoreVersionError: a newer version of the library made it.
        StoreDamagedError: its MANIFEST, or a segment named there, is missing or broken.
        StoreFullError: there is no room for what has to be written.
        StoreError: there is no store and none may be made, or the folder can't be used.
    """
    folder = StoreFolder(Path(path).absolute())
    with disk_errors(folder.root, "the store could not be looked at"):
        found = folder.manifest.is_file()
    if not create and not found:
        raise StoreError(f"{folder.root}: there is no store here; check the path, or let it be made")
    folder.create()
    lock = StoreLock.acquire(folder.lock, config.lock_timeout_s)
    try:
        return OpenStore(folder, lock, _load_or_make(folder), config)
    except BaseException:
        lock.release()
        raise


class OpenStore:
    """A store that this process owns.

    Attributes:
        folder: its paths.
        lock: the ownership; its descriptor is for the writer process to inherit.
        manifest: as it was at the opening; from then on the writer process changes it.
        segments: reads frames.
        damage: what could not be read; grows while ``frames`` is consumed.
        torn: broken-off tails, the usual trace of a killed process; they held nothing that was acknowledged.
    """

    def __init__(self, folder: StoreFolder, lock: StoreLock, manifest: Manifest, config: Store) -> None:
        """Use ``open_store``."""
        self.folder = folder
        self.lock = lock
        self.manifest = manifest
        self.segments = SegmentReader(folder)
        self.damage: list[Damage] = []
        self.torn: list[Damage] = []
        self._journal_bytes = config.journal_bytes
        self._power = config.durability == "power"
        self._journals: list[Journal] = []
        self._check_segments()
        try:
            self._open_journals()
        except BaseException:
            self._close_files()
            raise

    def _check_segments(self) -> None:
        files = dict(numbered(self.folder.segments, ".segment"))
        for number in self.manifest.segments:
            if number not in files:
                raise StoreDamagedError(
                    f"{self.folder.segment(number)}: the segment is missing; restore it from a backup of the store"
                )
        manifest = without_unpinned(self.folder, without_drafts(self.folder, self.manifest))
        if manifest != self.manifest:
            manifest.save(self.folder)
        make_pin(self.folder, manifest.generation)
        for number in files.keys() - self.manifest.named:
            self._remove_unnamed(files[number])
        self.manifest = manifest
        if self.manifest.segments:
            _fsync(files[self.manifest.segments[-1]])

    def _remove_unnamed(self, path: Path) -> None:
        size = path.stat().st_size
        if not size:  # made just before its maker was killed, and before anything counted on it
            path.unlink()
            return
        kept = move_aside(self.folder, path)
        self.damage.append(Damage(path, 0, size, f"MANIFEST does not name it; kept as {kept}"))
        logger.warning("%s: MANIFEST does not name this segment; it is kept as %s", path, kept)

    def _open_journals(self) -> None:
        files = numbered(self.folder.journals, ".journal")
        self._numbers = itertools.count(files[-1][0] + 1 if files else 1)
        for _, path in files:
            journal = Journal.open(path)
            self._journals.append(journal)
            if self._power:
                # Its owner may have been killed before it came to do so. Whoever is told that a page is known, or how
                # far a file was read, takes it for safe.
                journal.sync()
            for item in journal.damage:
                self._report(path, item)
            if journal.torn is not None:
                self._report_torn(path, journal.torn)
                self._keep(self.torn[-1])
            if not journal.end:
                self.retire(journal)

    def frames(self) -> Iterator[StoredFrame]:
        """Yield every valid frame of every segment, in the order of writing; one frame is in memory at a time.

        What can't be read is noted in ``damage``, logged and kept aside. To be consumed before the writer is started.

        Raises:
            StoreError: a segment can't be read.
        """
        for number in self.manifest.segments:
            path = self.folder.segment(number)
            for item in self.segments.scan(number, (FrameKind.PAGES,)):
                if isinstance(item, Frame):
                    address = FrameAddress(number, item.offset)
                    yield StoredFrame(item.kind, item.last_page, item.body, address, item.generation)
                elif isinstance(item, Torn) and number == self.manifest.segments[-1]:
                    self._report_torn(path, item)
                else:
                    self._report(path, item)

    def use_model(self, identity: dict[str, Any], generation: int) -> None:
        """Have vectors be made by another model from now on, durably; before the writer is started.

        Args:
            identity: the model's.
            generation: a number that no frame of derived data in the store has.

        Raises:
            StoreError: MANIFEST could not be replaced.
        """
        manifest = self.manifest.with_embedding(identity, generation)
        manifest.save(self.folder)
        self.manifest = manifest

    def journals(self) -> list[Journal]:
        """Return the journals that are neither empty nor retired, oldest first; a journal's ``end`` tells its size."""
        return list(self._journals)

    def journaled_pages(self) -> Iterator[JournaledPage]:
        """Yield the records of ``journals()``, in order."""
        for journal in self.journals():
            for offset, seq, body in journal.records():
                yield JournaledPage(seq, body, journal, offset)

    def new_journal(self, min_bytes: int = 0) -> Journal:
        """Make the next journal: of the configured size, or of ``min_bytes`` where that is more. From any thread.

        Raises:
            StoreFullError: there is no room for it.
            StoreError: it can't be made.
        """
        path = self.folder.journal(next(self._numbers))
        journal = Journal.create(path, max(self._journal_bytes, min_bytes))
        self._journals.append(journal)
        return journal

    def retire(self, journal: Journal) -> None:
        """Remove a journal, all of whose pages are in segments and durable there.

        Where the disk refuses, it stays: it costs its room, and the next opening removes it.
        """
        self._journals.remove(journal)
        journal.close()
        try:
            journal.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s", store_error(error, journal.path, "the journal stays, as it could not be removed"))

    def _report(self, path: Path, item: Damaged | Torn) -> None:
        reason = item.reason if isinstance(item, Damaged) else "the segment ends in the midst of a frame"
        damage = Damage(path, item.offset, item.length, reason)
        if damage not in self.damage:
            self.damage.append(damage)
            self._keep(damage)

    def _report_torn(self, path: Path, item: Torn) -> None:
        damage = Damage(path, item.offset, item.length, "broken off while it was written")
        if damage not in self.torn:
            self.torn.append(damage)
            logger.info("%s: %d bytes at offset %d are a torn tail", path, item.length, item.offset)

    def _keep(self, damage: Damage) -> None:
        kept = keep_aside(self.folder, damage)
        logger.warning(
            "%s: %d bytes at offset %d: %s; they are kept as %s",
            damage.path,
            damage.length,
            damage.offset,
            damage.reason,
            kept,
        )

    def close(self) -> None:
        """Let go of all files, and of the lock: only once the writer process has ended."""
        self._close_files()
        self.lock.release()

    def _close_files(self) -> None:
        self.segments.close()
        for journal in self._journals:
            journal.close()
        self._journals.clear()

    def __enter__(self) -> OpenStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _load_or_make(folder: StoreFolder) -> Manifest:
    if folder.has_manifest():
        with disk_errors(folder.manifest, "its name could not be made durable"):
            fsync_folder(folder.root)  # else a power cut may bring the one before back, under all that is built on it
        manifest = Manifest.load(folder)
        if manifest.format < FORMAT:
            manifest = manifest.upgraded()
            manifest.save(folder)
        return manifest
    with disk_errors(folder.root, "its name could not be made durable"):
        fsync_ancestors(folder.root)  # before MANIFEST, so that where that is, this was done
    manifest = Manifest.new()
    manifest.save(folder)
    return manifest


def _fsync(path: Path) -> None:
    """Make a segment durable whose writer may have been killed before it did: journals are removed because of it."""
    with disk_errors(path, "the segment could not be made durable"):
        descriptor = open_private(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
