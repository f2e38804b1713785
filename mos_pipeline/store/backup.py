"""Copying a store while another process, or this one, writes to it; and putting a copy in a store's place.

Looked at as readers do (``store/readonly.py``): journals first, then a pinned MANIFEST and its segments, the last of
which is cut behind its last whole frame, then journals once more, for the pages that these frames may speak of. All
are opened before anything is copied, so that what the owner removes meanwhile stays readable. MANIFEST is written
last; until then there is one that says that the copy is unfinished, and is refused by whoever opens it.

Segments are copied, not linked: a copy shares no block of the disk with the store, and lives through its damage.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mos_pipeline.errors import InputError, StoreDamagedError, StoreError
from mos_pipeline.store.folder import StoreFolder, disk_errors, fsync_folder, numbered, open_private, write_all
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.manifest import UNFINISHED, Manifest
from mos_pipeline.store.models import copy_model, wrong_with_model
from mos_pipeline.store.pins import Pin
from mos_pipeline.store.scanning import find_tear
from mos_pipeline.store.segments import reader_of
from mos_pipeline.store.verify import verify_store

__all__ = ["backup_store", "restore_store"]

logger = logging.getLogger(__name__)

COPY_BYTES = 4 << 20
LOOKS = 20  # at a store whose journals change so fast that one of them was never seen


class _Source(NamedTuple):
    """A segment as far as it is copied: its number, an open descriptor, and its bytes from the beginning on."""

    number: int
    descriptor: int
    size: int


def backup_store(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Copy the store in the folder ``path`` to ``target``, which is made, or empty; return the bytes copied.

    The copy is a store of its own. It holds every page that was accepted before the call, and what was derived from
    them and stored by then; it may hold pages that were accepted meanwhile. Damaged bytes are copied as they are, the
    folder ``aside`` is not.

    Raises:
        InputError: ``target`` is not empty, or can't be made.
        StoreDamagedError: a segment is missing.
        StoreError: there is no store, it can't be read, or ``target`` can't be written; nothing is left there.
    """
    source, copy = StoreFolder(Path(path).absolute()), StoreFolder(Path(target).absolute())
    if not source.manifest.is_file():
        raise StoreError(f"{source.root}: there is no store here (no MANIFEST); check the path")
    if source.root in {copy.root, *copy.root.parents}:
        raise InputError(f"{copy.root}: it lies in the store that is to be copied; name a folder elsewhere")
    with _emptied_on_failure(copy), _looked_at(source) as (manifest, segments, journals):
        copied = sum(_copy_segment(segment, copy) for segment in segments)
        copied += sum(_copy_journal(journal, copy) for journal in journals)
        copied += copy_model(source, copy, manifest.embedding)
        if reason := wrong_with_model(copy, manifest.embedding):  # the pages count all the same
            logger.warning("%s: %s", copy.root, reason)
        for folder in (copy.segments, copy.journals):
            with disk_errors(folder, "the copy could not be made durable"):
                fsync_folder(folder)
        manifest.save(copy)  # last: it makes the copy whole
        with disk_errors(copy.root.parent, "the copy could not be made durable"):
            fsync_folder(copy.root.parent)
    return copied


def restore_store(backup: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Make a store in ``target``, which is not there, or empty, from a backup; return the bytes copied.

    Raises:
        InputError: ``target`` is not empty, or can't be made.
        StoreDamagedError: the backup is damaged; it can be opened as it is, and loses only what is damaged.
        StoreError: there is no whole backup, or ``target`` can't be written.
    """
    if not StoreFolder(Path(backup).absolute()).manifest.is_file():
        raise StoreError(f"{backup}: there is no backup here (no MANIFEST); check the path")
    Manifest.load(StoreFolder(Path(backup).absolute()))  # says so where it was never finished
    report = verify_store(backup)
    if report.problems:
        where, offset, reason = report.problems[0]
        raise StoreDamagedError(
            f"{where}, offset {offset}: {reason} ({len(report.problems)} in all); use another backup, or open this one "
            "as a store, which sets aside what is damaged and keeps the rest"
        )
    return backup_store(backup, target)


@contextmanager
def _emptied_on_failure(copy: StoreFolder) -> Iterator[None]:
    """Make the folders of ``copy``, and take away what was put there where the block fails."""
    root, there = copy.root, copy.root.exists()
    try:
        if there and any(root.iterdir()):
            raise InputError(f"{root}: the folder is not empty; name a new one, or an empty one")
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root}: not a folder that can be used ({error.strerror}); name another") from None
    try:
        _mark_unfinished(copy)
        copy.create()
        yield
    except BaseException:
        _take_away(copy)
        if not there:
            root.rmdir()
        raise


def _mark_unfinished(copy: StoreFolder) -> None:
    with disk_errors(copy.manifest, "the copy could not be begun"):
        new = copy.manifest.with_suffix(".new")
        descriptor = open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            write_all(descriptor, UNFINISHED, 0)
        finally:
            os.close(descriptor)
        new.replace(copy.manifest)  # whole from its first moment: who is killed in between has copied nothing yet


def _take_away(copy: StoreFolder) -> None:
    for folder in (copy.segments, copy.journals, copy.aside, copy.pins, copy.models):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (copy.manifest, copy.manifest.with_suffix(".new")):
        file.unlink(missing_ok=True)


@contextmanager
def _looked_at(source: StoreFolder) -> Iterator[tuple[Manifest, list[_Source], list[Journal]]]:
    """Give what a copy consists of: the MANIFEST to write, segments and journals, open until the block ends."""
    with ExitStack() as held:
        for _ in range(LOOKS):
            look = held.enter_context(ExitStack())
            journals = _Journals(source, look)
            journals.look()
            newest = journals.newest
            pin = look.enter_context(Pin.take(source))
            segments = _open_segments(source, pin.manifest, look)
            journals.look()
            if journals.unbroken_from(newest):
                manifest = replace(pin.manifest.without_drafts(), retired=())
                yield manifest, segments, journals.all()
                return
            look.close()
    raise StoreError(f"{source.root}: its journals change too fast to be copied; try again")


class _Journals:
    """The journals that were seen, by their numbers."""

    def __init__(self, source: StoreFolder, held: ExitStack) -> None:
        self._source = source
        self._held = held
        self._seen: dict[int, Journal] = {}
        self._replaced = False  # has another file come under a number that was seen?

    @property
    def newest(self) -> int:
        """The highest number seen; 0 for none."""
        return max(self._seen, default=0)

    def look(self) -> None:
        """Open what is new, the newest first, and see how far each one has come."""
        for number, path in reversed(numbered(self._source.journals, ".journal")):
            try:
                journal = Journal.open(path)
            except StoreError:
                if path.exists():
                    raise
                continue  # its pages are in a segment
            self._held.callback(journal.close)
            if self._seen.setdefault(number, journal).identity != journal.identity:
                self._replaced = True
        for journal in self._seen.values():
            journal.catch_up()

    def unbroken_from(self, number: int) -> bool:
        """Whether no journal that is younger than ``number`` can have come and gone between two looks."""
        if self._replaced or not number:
            return not self._seen
        return all(between in self._seen for between in range(number + 1, self.newest + 1))

    def all(self) -> list[Journal]:
        """Return those that hold something, oldest first."""
        return [journal for _, journal in sorted(self._seen.items()) if journal.end]


def _open_segments(source: StoreFolder, manifest: Manifest, held: ExitStack) -> list[_Source]:
    found = []
    for number in manifest.segments:
        path = source.segment(number)
        if not path.exists():
            raise StoreDamagedError(f"{path}: the segment is missing; run verify on the store, and use a backup")
        with disk_errors(path, "the segment could not be opened"):
            descriptor = open_private(path, os.O_RDONLY)
            held.callback(os.close, descriptor)
            size = os.fstat(descriptor).st_size
            if number == manifest.segments[-1]:
                tear = find_tear(reader_of(descriptor), size)
                size = size if tear is None else tear.offset
        found.append(_Source(number, descriptor, size))
    return found


def _copy_segment(segment: _Source, copy: StoreFolder) -> int:
    path = copy.segment(segment.number)
    with disk_errors(path, "the segment could not be copied"):
        target = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            _copy_bytes(segment.descriptor, target, segment.size)
            os.fsync(target)
        finally:
            os.close(target)
    return segment.size


def _copy_bytes(source: int, target: int, size: int) -> None:
    """Copy the first ``size`` bytes, in the kernel where the file systems can."""
    done = 0
    while done < size:
        count = min(COPY_BYTES, size - done)
        try:
            copied = os.copy_file_range(source, target, count, done, done)
        except OSError:  # two file systems, or one that can't; a full disk says so again below
            data = os.pread(source, count, done)
            write_all(target, data, done)
            copied = len(data)
        if not copied:
            return  # the writer has cut a frame that it could not make durable
        done += copied


def _copy_journal(journal: Journal, copy: StoreFolder) -> int:
    """Copy what a journal holds; the copy is as long as that, and is read alone."""
    path = copy.journals / journal.path.name
    with disk_errors(path, "the journal could not be copied"):
        target = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            write_all(target, journal.raw(), 0)
            os.fsync(target)
        finally:
            os.close(target)
    return journal.end
