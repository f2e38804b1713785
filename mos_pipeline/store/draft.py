"""A segment in the making."""

from __future__ import annotations

import os

from mos_pipeline.store.folder import StoreFolder, disk_errors, open_private, write_all
from mos_pipeline.store.segments import FrameAddress

__all__ = ["Draft"]

SYNC_BYTES = 1 << 22  # it is flushed in parts: one flush of a whole segment would hold up the writer for long


class Draft:
    """A segment in the making, which MANIFEST names as a draft already.

    Attributes:
        number: the segment's.
        end: its bytes so far.
    """

    def __init__(self, folder: StoreFolder, number: int) -> None:
        """Make the file, or empty it.

        Raises:
            StoreError: it can't be made.
        """
        self.number = number
        self.end = 0
        self._path = folder.segment(number)
        self._synced = 0
        with disk_errors(self._path, "a segment's draft could not be made"):
            self._descriptor = open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def append(self, frame: bytes) -> FrameAddress:
        """Write a frame; its address is good once the draft has become a segment.

        Raises:
            StoreError: the disk failed, and the draft is of no use.
        """
        with disk_errors(self._path, "a frame could not be written anew"):
            write_all(self._descriptor, frame, self.end)
        address = FrameAddress(self.number, self.end)
        self.end += len(frame)
        if self.end - self._synced >= SYNC_BYTES:
            self.sync()
        return address

    def sync(self) -> None:
        """Make all of it durable.

        Raises:
            StoreError: as from ``append``.
        """
        with disk_errors(self._path, "a segment's draft could not be made durable"):
            os.fsync(self._descriptor)
        self._synced = self.end

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
