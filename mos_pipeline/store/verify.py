"""Checking a store from outside: reads only, takes no lock, and works beside a running owner."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mos_pipeline.errors import StoreError
from mos_pipeline.messages import decode, decode_tombstone
from mos_pipeline.store.codec import FrameKind, unpack_pages
from mos_pipeline.store.folder import StoreFolder, numbered
from mos_pipeline.store.journal import Journal, JournalRecord
from mos_pipeline.store.lock import live_owner
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.models import model_of, wrong_with_model
from mos_pipeline.store.pins import Pin
from mos_pipeline.store.scanning import Damaged, Frame, Torn
from mos_pipeline.store.segments import SegmentReader
from mos_pipeline.store.seqs import SeqRanges

__all__ = ["Finding", "VerifyReport", "verify_store"]


class Finding(NamedTuple):
    """Something worth telling, with the file and the offset in bytes that it is about."""

    path: Path
    offset: int
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """What a store consists of, and what is wrong with it.

    Attributes:
        owner: pid of the live owner, or None.
        pages: distinct pages that were not forgotten.
        forgotten: page numbers whose page was forgotten, whether its bytes are still there or not.
        repeated: how often a page was met again (in a journal and a segment, or in two frames); harmless.
        frames: frames of each kind, by the kind's name in lower case.
        bytes: bytes on the disk: of frames by kind, of ``journals``, and ``other`` (MANIFEST, aside, what is damaged).
        problems: data that can't be read or is missing.
        notes: what the next opening will put right by itself.
    """

    owner: int | None = None
    pages: int = 0
    forgotten: int = 0
    repeated: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Is all there, and readable?"""
        return not self.problems


def verify_store(path: str | os.PathLike[str]) -> VerifyReport:
    """Check MANIFEST, frames, bodies, journals and the sequence of pages of the store in the folder ``path``.

    Raises:
        StoreError: there is no store.
    """
    folder = StoreFolder(Path(path).absolute())
    journals, segments = _listed(folder.journals, ".journal"), _listed(folder.segments, ".segment")
    if not (folder.manifest.exists() or journals or segments):
        raise StoreError(f"{folder.root}: there is no store here; check the path")
    report = VerifyReport(live_owner(folder.lock))
    check = _Check(folder, report)
    check.places()
    # Journals first and the newest first: pages wander from older to newer journals and from journals to segments, and
    # so none can slip by between two looks at a store in use.
    for _, journal in reversed(journals):
        check.journal(journal)
    check.segments()
    check.sequence()
    report.bytes["other"] = max(0, _size_of_all(folder.root) - report.bytes.total())
    return report


class _Check:
    def __init__(self, folder: StoreFolder, report: VerifyReport) -> None:
        self._folder = folder
        self._report = report
        self._known = SeqRanges()
        self._forgotten = SeqRanges()
        self._tombstones = set[int]()

    def places(self) -> None:
        """Look for what stands in the place of a folder, or of LOCK; those that are missing are made at opening."""
        folder = self._folder
        for path in (folder.journals, folder.segments, folder.aside, folder.pins):
            if path.exists() and not path.is_dir():
                self._problem(path, 0, "it is no folder; put it elsewhere")
        if folder.models.exists() and not folder.models.is_dir():
            self._problem(folder.models, 0, "it is no folder; put it elsewhere")
        if folder.lock.exists() and not folder.lock.is_file():
            self._problem(folder.lock, 0, "it is no file; put it elsewhere")

    def journal(self, path: Path) -> None:
        try:
            journal = Journal.open(path)
        except StoreError as error:
            if path.exists():  # else its pages went to a segment meanwhile
                self._problem(path, 0, str(error))
            return
        self._report.bytes["journals"] += journal.size
        for damaged in journal.damage:
            self._problem(path, damaged.offset, damaged.reason)
        if journal.torn is not None:
            self._torn(path, journal.torn)
        for record in journal.records():
            self._record(path, record)
        journal.close()

    def _record(self, path: Path, record: JournalRecord) -> None:
        if reason := self._pages(record.seq, [record.body]):
            self._problem(path, record.offset, reason)

    def segments(self) -> None:
        try:
            with _pinned(self._folder) as manifest:
                self._segments(manifest)
        except StoreError as error:
            self._problem(self._folder.manifest, 0, str(error))

    def _segments(self, manifest: Manifest) -> None:
        reader = SegmentReader(self._folder)
        for number in manifest.segments:
            self._segment(reader, number, last=number == manifest.segments[-1])
        reader.close()
        if reason := wrong_with_model(self._folder, manifest.embedding):
            self._problem(model_of(self._folder, manifest.embedding) or self._folder.models, 0, reason)
        for number, path in _listed(self._folder.segments, ".segment"):
            # The owner may have begun one since MANIFEST was read.
            if number not in manifest.named and self._report.owner is None:
                self._report.notes.append(Finding(path, 0, "MANIFEST does not name it; it is moved aside at opening"))

    def _segment(self, reader: SegmentReader, number: int, *, last: bool) -> None:
        path = self._folder.segment(number)
        if path.exists() and not path.is_file():
            self._problem(path, 0, "it is no file; restore a backup")
            return
        try:
            for item in reader.scan(number):
                if isinstance(item, Frame):
                    self._frame(path, item)
                elif isinstance(item, Damaged):
                    self._problem(path, item.offset, item.reason)
                elif last:
                    self._torn(path, item)
                else:
                    self._problem(path, item.offset, "the segment ends in the midst of a frame")
        except StoreError as error:
            self._problem(path, 0, str(error))

    def _frame(self, path: Path, frame: Frame) -> None:
        name = frame.kind.name.lower()
        self._report.frames[name] += 1
        self._report.bytes[name] += frame.length
        if reason := self._body(frame):
            self._problem(path, frame.offset, reason)

    def _body(self, frame: Frame) -> str:
        if frame.kind != FrameKind.PAGES:
            return _undecodable(frame.body)
        try:
            first_seq, _, records = unpack_pages(frame.body)
        except StoreError as error:
            return str(error)
        return self._pages(first_seq, records)

    def _pages(self, first_seq: int, bodies: Sequence[bytes]) -> str:
        """Count neighbouring records, and return what is wrong with them."""
        stop = first_seq + len(bodies)
        fresh = sum(stop - start for start, stop in self._known.add(first_seq, stop))
        self._report.repeated += len(bodies) - fresh
        bad = ((seq, self._page(seq, body)) for seq, body in enumerate(bodies, first_seq))
        return "; ".join(f"page {seq}: {reason}" for seq, reason in bad if reason)

    def _page(self, seq: int, body: bytes) -> str:
        if not body:
            self._forgotten.add(seq, seq + 1)
            return ""
        try:
            named = decode_tombstone(body)
        except (ValueError, TypeError) as error:
            return f"a tombstone that can't be read ({error})"
        if named is None:
            return _undecodable(body)
        self._tombstones.add(seq)
        for page in named:
            self._forgotten.add(page, page + 1)
        return ""

    def _torn(self, path: Path, torn: Torn) -> None:
        # Where the owner is alive, it is just being written.
        if self._report.owner is None:
            reason = f"a torn tail of {torn.length} bytes; it is cut off at opening"
            self._report.notes.append(Finding(path, torn.offset, reason))

    def sequence(self) -> None:
        """Count the pages, and look for numbers that are missing: those of forgotten pages may be."""
        for start, stop in self._forgotten.ranges():
            self._known.add(start, stop)
        tombstones = sum(seq not in self._forgotten for seq in self._tombstones)
        self._report.forgotten = len(self._forgotten)
        self._report.pages = len(self._known) - len(self._forgotten) - tombstones
        for start, stop in self._known.holes():
            which = f"page {start} is" if stop == start + 1 else f"pages {start} to {stop - 1} are"
            self._problem(self._folder.root, 0, f"{which} missing; restore a backup")

    def _problem(self, path: Path, offset: int, reason: str) -> None:
        self._report.problems.append(Finding(path, offset, reason))


@contextmanager
def _pinned(folder: StoreFolder) -> Iterator[Manifest]:
    """Give the MANIFEST, and keep its segments from being deleted, where that leaves no trace in the store."""
    if not folder.pin(Manifest.load(folder).generation).exists():
        yield Manifest.load(folder)
        return
    with Pin.take(folder) as pin:
        yield pin.manifest


def _undecodable(body: bytes) -> str:
    """Return why ``body`` is not one msgpack message, or nothing."""
    try:
        content: Any = decode(body)
    except (ValueError, TypeError) as error:
        return f"not valid msgpack ({error})"
    return "" if isinstance(content, list | dict) else f"expected a list or map, found {type(content).__name__}"


def _listed(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    return numbered(folder, suffix) if folder.is_dir() else []


def _size_of_all(root: Path) -> int:
    sizes = 0
    for path in root.rglob("*"):
        try:
            sizes += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a journal that was retired meanwhile
            continue
    return sizes
