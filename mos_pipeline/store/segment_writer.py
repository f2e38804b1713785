"""Appending to segments.

The writer knows where the last whole frame ends and writes there. What a failed write or a failed fsync left behind it
is cut off before anything else is written, so that every segment is clean up to its last frame.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from mos_pipeline.errors import StoreError
from mos_pipeline.store.codec import NO_PAGE, FrameKind, check_level, encode_frame
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
from mos_pipeline.store.scanning import find_tear
from mos_pipeline.store.segments import FrameAddress, reader_of

__all__ = ["SegmentWriter"]

logger = logging.getLogger(__name__)


class SegmentWriter:
    """Appends frames to a store's last segment, and begins the next. One per store; not thread-safe.

    Attributes:
        manifest: the MANIFEST in force. After the store is opened, this is the only place it is changed from.
        durable: the address up to which, exclusively, all frames are on the disk.
        segment_bytes, level: as given.
    """

    def __init__(self, folder: StoreFolder, segment_bytes: int, level: int) -> None:
        """Open the last segment and cut off its torn tail, which is kept in ``aside``.

        Raises:
            ConfigError: zstd has no such level.
            StoreError: the store can't be read or written.
        """
        check_level(level)
        self._folder = folder
        self.segment_bytes = segment_bytes
        self.level = level
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
            tear = find_tear(reader_of(self._descriptor), size)
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
        frame = encode_frame(kind, body, self.level, last_page, self.manifest.vector_generation)
        if not self._number or (self._end and self._end + len(frame) > self.segment_bytes):
            self.begin_next()
        self._cut()
        address = self.end
        path = self._folder.segment(self._number)
        try:
            write_all(self._descriptor, frame, self._end)
        except OSError as error:
            self._tail = True
            self._try_to_cut()
            raise store_error(error, path, "a frame could not be written") from error
        self._end += len(frame)
        return address

    @property
    def end(self) -> FrameAddress:
        """Where the next frame goes, if the segment has room for it; segment 0 where there is none yet."""
        return FrameAddress(self._number, self._end)

    def begin_next(self) -> None:
        """Make the next segment and name it in the MANIFEST, before it gets its first frame.

        Raises:
            StoreError: it can't be made; or as from ``sync``.
        """
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
        here = self.end
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
        self.replace_manifest(self.manifest.with_embedding(identity))

    def replace_manifest(self, manifest: Manifest) -> None:
        """Put another MANIFEST in force, durably; its last segment must be that of the one before.

        Raises:
            StoreError: it could not be written: the old one may be in force, or this one, and it has to be tried again.
        """
        if manifest != self.manifest:
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
