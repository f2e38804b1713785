"""Segments: files of frames, appended to by one writer, read by anyone.

The writer knows where the last whole frame ends and writes there. What a failed write or a failed fsync left behind it
is cut off before anything else is written, so that every segment is clean up to its last frame.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from mos_pipeline.errors import StoreDamagedError, StoreError
from mos_pipeline.store.codec import (
    HEADER_BYTES,
    NO_PAGE,
    FrameKind,
    check_level,
    decode_body,
    encode_frame,
    parse_header,
)
from mos_pipeline.store.folder import (
    Damage,
    StoreFolder,
    disk_errors,
    fsync_folder,
    keep_aside,
    open_private,
    store_error,
    write_all,
)
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.scanning import Damaged, Frame, Read, Torn, find_tear, scan_frames

__all__ = ["FrameAddress", "SegmentReader", "SegmentWriter"]

logger = logging.getLogger(__name__)

OPEN_FILES = 8
FIRST_READ = 1 << 14  # most frames of 64 pages are shorter: header and body in one system call


class FrameAddress(NamedTuple):
    """Where a frame lies: the segment's number, and the offset of its header in bytes.

    Ascending in the order of appending; frames that were rewritten have higher numbers than their place in that order.
    """

    segment: int
    offset: int


class SegmentWriter:
    """Appends frames to a store's last segment, and begins the next. One per store; not thread-safe.

    Attributes:
        manifest: the MANIFEST in force. After the store is opened, this is the only place it is changed from.
        durable: the address up to which, exclusively, all frames are on the disk.
    """

    def __init__(self, folder: StoreFolder, segment_bytes: int, level: int) -> None:
        """Open the last segment and cut off its torn tail, which is kept in ``aside``.

        Raises:
            ConfigError: zstd has no such level.
            StoreError: the store can't be read or written.
        """
        check_level(level)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._level = level
        self.manifest = Manifest.load(folder)
        self._number = self.manifest.segments[-1] if self.manifest.segments else 0
        self._descriptor = -1
        self._end = 0
        self._tail = False  # is there something behind _end that has to be cut off?
        if self._number:
            try:
                self._open_last()
            except BaseException:
                self._close_file()
                raise
        self.durable = FrameAddress(self._number, self._end)

    def _open_last(self) -> None:
        path = self._folder.segment(self._number)
        with disk_errors(path, "the segment could not be opened"):
            self._descriptor = open_private(path, os.O_RDWR)
            self._end = size = os.fstat(self._descriptor).st_size
            os.fsync(self._descriptor)  # frames of a writer that was killed before it came to do so
            tear = find_tear(_reader(self._descriptor), size)
        if tear is not None:
            kept = keep_aside(self._folder, Damage(path, tear.offset, tear.length, "torn"))
            logger.warning("%s: a torn tail of %d bytes is cut off; it is kept as %s", path, tear.length, kept)
            self._end, self._tail = tear.offset, True
            self._cut()

    def append(self, kind: FrameKind, body: bytes, last_page: int = NO_PAGE) -> FrameAddress:
        """Write a frame and return its address; it is durable once ``sync`` has returned.

        Raises:
            StoreFullError: there is no room; nothing of the frame is left, and a later call may succeed.
            StoreError: the disk failed; likewise.
            InputError: the body is too long for a frame.
        """
        frame = encode_frame(kind, body, self._level, last_page)
        if not self._number or (self._end and self._end + len(frame) > self._segment_bytes):
            self._begin_next()
        self._cut()
        address = FrameAddress(self._number, self._end)
        path = self._folder.segment(self._number)
        try:
            write_all(self._descriptor, frame, self._end)
        except OSError as error:
            self._tail = True
            self._try_to_cut()
            raise store_error(error, path, "a frame could not be written") from error
        self._end += len(frame)
        return address

    def _begin_next(self) -> None:
        """Make the next segment and name it in the MANIFEST, before it gets its first frame."""
        self.sync()
        number = self.manifest.next_number
        path = self._folder.segment(number)
        with disk_errors(path, "a new segment could not be made"):
            # Not O_EXCL: after a failure further down, the next attempt finds the file that this one made.
            descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
            try:
                if os.fstat(descriptor).st_size:
                    raise StoreError(f"{path}: something that MANIFEST does not name lies here; reopen the store")
                os.fsync(descriptor)
                fsync_folder(path.parent)
                manifest = self.manifest.with_segment(number)
                manifest.save(self._folder)
            except BaseException:
                os.close(descriptor)
                raise
        self._close_file()
        self.manifest, self._descriptor, self._number, self._end = manifest, descriptor, number, 0
        self.durable = FrameAddress(number, 0)

    def sync(self) -> None:
        """Return once every frame is on the disk.

        Raises:
            StoreError: the disk failed. All frames from ``durable`` on are cut off and have to be written again: after
                a failed fsync Linux may forget what it could not write, and the next fsync would say that all is well.
        """
        here = FrameAddress(self._number, self._end)
        if here == self.durable:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._end, self._tail = self.durable.offset, True
            self._try_to_cut()
            raise store_error(error, self._folder.segment(self._number), "frames could not be made durable") from error
        self.durable = here

    def _try_to_cut(self) -> None:
        try:
            self._cut()
        except StoreError as error:
            logger.warning("%s; it is cut off before the next frame is written", error)

    def _cut(self) -> None:
        if self._tail:
            with disk_errors(self._folder.segment(self._number), f"its tail from offset {self._end} is not cut off"):
                os.ftruncate(self._descriptor, self._end)
            self._tail = False

    def set_embedding(self, identity: dict[str, Any]) -> None:
        """Write the embedding model's identity into the MANIFEST, durably.

        Raises:
            StoreError: it could not be written.
        """
        manifest = self.manifest.with_embedding(identity)
        manifest.save(self._folder)
        self.manifest = manifest

    def close(self) -> None:
        """Make everything durable and let go of the file.

        Raises:
            StoreError: as from ``sync``; the file is closed all the same.
        """
        try:
            self.sync()
        finally:
            self._close_file()

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


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
                read = _reader(file.descriptor)
                data += read(address.offset + len(data), HEADER_BYTES + header.stored - len(data))
        try:
            if header is None:
                raise StoreDamagedError("there is no valid frame header")
            return decode_body(header, data[HEADER_BYTES : HEADER_BYTES + header.stored])
        except StoreDamagedError as error:
            mend = "run `verify` on the store, and restore a backup"
            raise StoreDamagedError(f"{path}: damaged at offset {address.offset}: {error}; {mend}") from None

    def scan(
        self, number: int, wanted: Container[FrameKind] = frozenset(FrameKind)
    ) -> Iterator[Frame | Damaged | Torn]:
        """Yield the frames of a segment as it is now, bodies of the ``wanted`` kinds, and what is damaged in it.

        Raises:
            StoreError: the segment can't be read.
        """
        file, path = self._file(number), self._folder.segment(number)
        with disk_errors(path, "the segment could not be read"):
            yield from scan_frames(_reader(file.descriptor), os.fstat(file.descriptor).st_size, wanted)

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


def _reader(descriptor: int) -> Read:
    """Return a function that reads ``size`` bytes at ``offset``, fewer only at the end of the file."""

    def read(offset: int, size: int) -> bytes:
        data = os.pread(descriptor, size, offset)
        while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    return read
