"""Segments: files of frames, appended to by one writer, read by anyone."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from mos_pipeline.errors import StoreDamagedError
from mos_pipeline.store.codec import (
    HEADER_BYTES,
    FrameKind,
    decode_body,
    parse_header,
)
from mos_pipeline.store.folder import (
    StoreFolder,
    disk_errors,
    open_private,
)
from mos_pipeline.store.scanning import Damaged, Frame, Read, Torn, scan_frames

__all__ = ["FrameAddress", "SegmentReader", "reader_of"]

logger = logging.getLogger(__name__)

OPEN_FILES = 8
FIRST_READ = 1 << 14  # most frames of 64 pages are shorter: header and body in one system call


class FrameAddress(NamedTuple):
    """Where a frame lies: the segment's number, and the offset of its header in bytes.

    Ascending in the order of appending; frames that were rewritten have higher numbers than their place in that order.
    """

    segment: int
    offset: int


class _OpenFile:
    """A descriptor that is closed once nobody uses it: one thread may drop it while another reads."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        with disk_errors(path, "the segment could not be opened"):
            self.descriptor = open_private(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class SegmentReader:
    """Reads frames, from any thread; keeps the descriptors of the segments that were used last."""

    def __init__(self, folder: StoreFolder) -> None:
        """Read the segments of ``folder``."""
        self._folder = folder
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()
        self._lock = Lock()

    def read_frame(self, address: FrameAddress) -> tuple[FrameKind, bytes]:
        """Return kind and unpacked body of the frame at ``address``.

        Raises:
            StoreDamagedError: there is no valid frame.
            StoreError: the segment can't be read.
        """
        path = self._folder.segment(address.segment)
        file = self._file(address.segment)
        with disk_errors(path, f"the frame at offset {address.offset} could not be read"):
            data = os.pread(file.descriptor, FIRST_READ, address.offset)
            header = parse_header(data)
            if header is not None and len(data) < HEADER_BYTES + header.stored:
                read = reader_of(file.descriptor)
                data += read(address.offset + len(data), HEADER_BYTES + header.stored - len(data))
        try:
            if header is None:
                raise StoreDamagedError("there is no valid frame header")
            return decode_body(header, data[HEADER_BYTES : HEADER_BYTES + header.stored])
        except StoreDamagedError as error:
            mend = "run `verify` on the store, and restore a backup"
            raise StoreDamagedError(f"{path}: damaged at offset {address.offset}: {error}; {mend}") from None

    def scan(
        self, number: int, wanted: Container[FrameKind] = frozenset(FrameKind), start: int = 0
    ) -> Iterator[Frame | Damaged | Torn]:
        """Yield the frames of a segment as it is now, from offset ``start`` on, and what is damaged in it.

        Only the ``wanted`` kinds have their bodies.

        Raises:
            StoreError: the segment can't be read.
        """
        file, path = self._file(number), self._folder.segment(number)
        with disk_errors(path, "the segment could not be read"):
            yield from scan_frames(reader_of(file.descriptor), os.fstat(file.descriptor).st_size, wanted, start)

    def read_bytes(self, address: FrameAddress, length: int) -> bytes:
        """Return ``length`` bytes from ``address`` on, as they are stored; fewer at the segment's end.

        Raises:
            StoreError: the segment can't be read.
        """
        file, path = self._file(address.segment), self._folder.segment(address.segment)
        with disk_errors(path, f"the frame at offset {address.offset} could not be read"):
            return reader_of(file.descriptor)(address.offset, length)

    def path(self, number: int) -> Path:
        """Return where a segment lies."""
        return self._folder.segment(number)

    def size(self, number: int) -> int:
        """Return a segment's size in bytes.

        Raises:
            StoreError: the segment can't be read.
        """
        with disk_errors(self._folder.segment(number), "the segment could not be read"):
            return os.fstat(self._file(number).descriptor).st_size

    def _file(self, number: int) -> _OpenFile:
        with self._lock:
            file = self._files.pop(number, None) or _OpenFile(self._folder.segment(number))
            self._files[number] = file
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
            return file

    def drop(self, numbers: Iterable[int]) -> None:
        """Let go of the files of segments that were removed, so that their room on the disk becomes free."""
        with self._lock:
            for number in numbers:
                self._files.pop(number, None)

    def close(self) -> None:
        """Let go of the files; a later read opens them again."""
        with self._lock:
            self._files.clear()


def reader_of(descriptor: int) -> Read:
    """Return a function that reads ``size`` bytes at ``offset`` of an open file, fewer only at its end."""

    def read(offset: int, size: int) -> bytes:
        data = os.pread(descriptor, size, offset)
        while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    return read
