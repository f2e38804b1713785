"""The writer's stage: journal ranges and derived frames become segments, and are acknowledged once they are durable.

Units, by kind:

    pages     [journal path, start, end, frame_pages]   → [[segment, offset, first_seq, count], …]
    frame     [frame kind, body, last page]             → [segment, offset]
    identity  {…}                                       → nil; saved in MANIFEST
    compact   {"segments", "forgotten", …}              → {"moved", "removed", "before", "after"}
    sweep     nil                                       → {"removed": [segment, …], "kept": [segment, …]}
    abandon   nil                                       → nil; compactions that are not over fail

``start`` and ``end`` are offsets in bytes; a frame gets at most ``frame_pages`` pages, of consecutive numbers,
and ends early once they have 1 MiB. ``compact`` is described at ``CompactionRequest`` and ``Compaction.commit``: it
is done in slices, and everything else goes before the next slice. The files of segments that it replaced are deleted by
``sweep``, which is for when nothing in the main process reads them any more; ``kept`` are those that a reader pins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mos_pipeline.errors import InputError, StoreError, StoreFullError
from mos_pipeline.runtime.start import InheritedFd
from mos_pipeline.runtime.worker import Report
from mos_pipeline.stages.compact import CompactionQueue
from mos_pipeline.store.codec import FrameKind, pack_pages
from mos_pipeline.store.folder import Damage, StoreFolder, keep_aside
from mos_pipeline.store.heads import PageHeads, heads_of
from mos_pipeline.store.journal import JournalRecord, read_range
from mos_pipeline.store.pins import without_unpinned
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.segments import FrameAddress

__all__ = ["WriteStage", "build_writer"]

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
NAP_S = 0.05
FRAME_BYTES = 1 << 20  # a frame of long pages ends here: whoever reads one page unpacks its whole frame


def build_writer(folder: str, segment_bytes: int, level: int, _lock: InheritedFd) -> WriteStage:
    """Make the writer's stage; the process keeps the store's lock for as long as it lives."""
    return WriteStage(folder, segment_bytes, level)


class _NewFrame(NamedTuple):
    """A frame to write; ``pages`` is [first_seq, count] for pages, else empty."""

    kind: FrameKind
    body: bytes
    last_page: int
    pages: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class _Unit:
    """Accepted work. ``rows`` are the results for those of its frames that are written already."""

    unit_id: int
    kind: str
    payload: Any
    rows: list[tuple[int, ...]] = field(default_factory=list)
    answer: Any = None

    @property
    def result(self) -> Any:
        match self.kind:
            case "pages":
                return self.rows
            case "frame":
                return self.rows[0]
        return self.answer

    def keep_durable(self, durable: FrameAddress) -> None:
        """Forget frames that were cut off again because they could not be made durable."""
        self.rows = [row for row in self.rows if row[:2] < durable]


class WriteStage:
    """Writes all that was accepted, then makes it durable at once, then acknowledges it.

    Where the disk is full or fails, nothing is lost: the units stay pending and are tried again after a pause, which
    grows from 0.1 to 5 s. A ``step`` within the pause only naps for at most 50 ms, so that work is still accepted and
    the loop around it does not spin. An error is logged when it begins, a warning when it is over.
    """

    def __init__(
        self, folder: str, segment_bytes: int, level: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write into the store in ``folder``; ``segment_bytes`` and zstd ``level`` as for ``SegmentWriter``."""
        self._folder = StoreFolder(Path(folder))
        self._segment_bytes = segment_bytes
        self._level = level
        self._clock = clock
        self._writer: SegmentWriter | None = None
        self._units: list[_Unit] = []
        self._compactions = CompactionQueue(self._folder, clock)
        self._announced: list[int] = []
        self._pause = 0.0
        self._retry_at = 0.0

    def prepare(self) -> dict[str, Any]:
        """Open the last segment, cutting off a torn tail; where the disk is full, that is left to the first ``step``.

        Returns:
            An empty dict: there is nothing that the main process has to know.

        Raises:
            ConfigError: zstd has no such level.
            StoreError: the store can't be read or written.
        """
        try:
            self._open_writer()
        except StoreFullError as error:
            self._put_off(error)  # refusing to work would be for good, a full disk is not
        return {}

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        """Take a unit."""
        if kind == "compact":
            self._compactions.add(unit_id, payload)
        else:
            self._units.append(_Unit(unit_id, kind, payload))

    @property
    def pending(self) -> bool:
        """Is there a unit that is neither acknowledged nor refused?"""
        return bool(self._units) or self._compactions.pending

    def step(self, report: Report) -> None:
        """Write every unit, wait for the disk once, and report them done; or put them off where the disk fails.

        Then compact for a moment, where that was asked for.
        """
        wait = self._retry_at - self._clock()
        if wait > 0:
            time.sleep(min(wait, NAP_S))
            return
        self._announce(report)
        trouble = (self._write_all(report) if self._units else None) or self._compact(report)
        if trouble is None:
            self._recovered()
        else:
            self._put_off(trouble)

    def _announce(self, report: Report) -> None:
        """Say what is worked on; of slice after slice of the same pass, once."""
        at_work = [*(unit.unit_id for unit in self._units), *self._compactions.unit_ids]
        if self._units or at_work != self._announced:
            report.started(at_work)
        self._announced = at_work

    def _compact(self, report: Report) -> StoreError | None:
        try:
            if self._compactions.pending:
                self._compactions.run(self._open_writer(), report)
        except StoreError as error:
            return error
        return None

    def _write_all(self, report: Report) -> StoreError | None:
        """Write and acknowledge what can be; return what stood in the way of the rest."""
        try:
            writer = self._open_writer()
        except StoreError as error:
            return error
        trouble: StoreError | None = None
        written: list[_Unit] = []
        for unit in list(self._units):
            try:
                self._write(writer, unit, report)
                written.append(unit)
            except InputError as error:
                self._units.remove(unit)
                report.failed(unit.unit_id, str(error))
            except StoreError as error:
                trouble = error
                break
        try:
            writer.sync()
        except StoreError as error:
            for unit in self._units:
                unit.keep_durable(writer.durable)
            return error
        for unit in written:
            self._units.remove(unit)
            report.done(unit.unit_id, unit.result)
        return trouble

    def _write(self, writer: SegmentWriter, unit: _Unit, report: Report) -> None:
        match unit.kind:
            case "identity":
                writer.set_embedding(_identity(unit.payload))
            case "sweep":
                unit.answer = self._sweep(writer)
            case "abandon":
                self._compactions.give_up(report)
            case _:
                self._write_frames(writer, unit)

    def _sweep(self, writer: SegmentWriter) -> dict[str, list[int]]:
        before = {segment.number for segment in writer.manifest.retired}
        writer.replace_manifest(without_unpinned(self._folder, writer.manifest))
        kept = {segment.number for segment in writer.manifest.retired}
        return {"removed": sorted(before - kept), "kept": sorted(kept)}

    def _write_frames(self, writer: SegmentWriter, unit: _Unit) -> None:
        done = len(unit.rows)
        for index, frame in enumerate(self._frames(unit)):
            if index >= done:
                address = writer.append(frame.kind, frame.body, frame.last_page)
                unit.rows.append((*address, *frame.pages))

    def _frames(self, unit: _Unit) -> Iterator[_NewFrame]:
        match unit.kind, unit.payload:
            case "frame", [int(kind), bytes(body), int(last_page)] if kind in set(FrameKind):
                yield _NewFrame(FrameKind(kind), body, last_page)
            case "pages", [str(path), int(start), int(end), int(frame_pages)] if frame_pages > 0:
                journal = Path(path)
                for first_seq, records in _runs(self._records(journal, start, end), frame_pages):
                    body = pack_pages(first_seq, _heads(journal, first_seq, records), records)
                    last_page = first_seq + len(records) - 1
                    yield _NewFrame(FrameKind.PAGES, body, last_page, (first_seq, len(records)))
            case _:
                raise InputError(f"unit {unit.unit_id}: {unit.kind!r} is unknown or its payload is malformed")

    def _records(self, path: Path, start: int, end: int) -> Iterator[JournalRecord]:
        for item in read_range(path, start, end):
            if isinstance(item, JournalRecord):
                yield item
            else:
                kept = keep_aside(self._folder, Damage(path, item.offset, item.length, "damaged"))
                logger.error(
                    "%s: %d damaged bytes at offset %d can't be written to a segment; they are kept as %s",
                    path,
                    item.length,
                    item.offset,
                    kept,
                )

    def _put_off(self, error: StoreError) -> None:
        if not self._pause:
            logger.error("%s; %d units wait and are tried again until it works", error, len(self._units))
        self._pause = min(MAX_PAUSE_S, 2 * self._pause or FIRST_PAUSE_S)
        self._retry_at = self._clock() + self._pause

    def _recovered(self) -> None:
        if self._pause:
            logger.warning("%s: segments can be written again", self._folder.segments)
        self._pause = self._retry_at = 0.0

    def _open_writer(self) -> SegmentWriter:
        if self._writer is None:
            self._writer = SegmentWriter(self._folder, self._segment_bytes, self._level)
        return self._writer

    def close(self) -> None:
        """Let go of the segment; what was not acknowledged is given out again by the next owner."""
        self._compactions.close()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except StoreError as error:
            logger.warning("%s", error)


def _identity(payload: Any) -> dict[str, Any]:
    if type(payload) is not dict:
        raise InputError(f"the embedding model's identity must be a map, found {type(payload).__name__}")
    return payload


def _heads(path: Path, first_seq: int, records: list[bytes]) -> PageHeads:
    try:
        return heads_of(records)
    except (ValueError, TypeError) as error:
        last = first_seq + len(records) - 1
        raise InputError(f"{path}: one of pages {first_seq} to {last} is no page's record ({error})") from None


def _runs(records: Iterator[JournalRecord], limit: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first number, records) for runs of at most ``limit`` records of consecutive numbers."""
    first_seq, run, size = 0, list[bytes](), 0
    for record in records:
        if run and (len(run) == limit or size >= FRAME_BYTES or record.seq != first_seq + len(run)):
            yield first_seq, run
            run, size = [], 0
        if not run:
            first_seq = record.seq
        run.append(record.body)
        size += len(record.body)
    if run:
        yield first_seq, run
