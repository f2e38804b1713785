"""Stdin: a file that somebody directs there, or a pipe, whose lines are taken as they come and which may never end.

A pipe can be read once, and what it is, and from where it is to be read on, takes more than one look. So what comes is
kept in a file without a name until that is decided (``decided``); from then on nothing is kept any more, and the file
goes when it was read to its end.
"""

from __future__ import annotations

import io
import os
import select
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.streams import STDIN, Stream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["from_stdin"]

BUFFER = 64 << 10  # a pipe holds no more
NAME = "stdin"


@contextmanager
def from_stdin(stdin: BinaryIO, beside: Path, wait: Callable[[int], None]) -> Iterator[Stream]:
    """Return stdin as a source, for the length of the ``with``.

    Args:
        stdin: where from.
        beside: where on the disk there is room for what has to be kept of a pipe.
        wait: called with a descriptor before it is read; returns when it can be, and may raise.

    Raises:
        InputError: there is no room.
    """
    if stdin.seekable() and not stdin.tell():
        yield Stream(STDIN, NAME, stdin)
        return
    folder = next(folder for folder in (beside, *beside.absolute().parents) if folder.is_dir())
    with _without_name(folder) as spool:
        yield _Piped(stdin.fileno(), spool, folder, wait)


def _without_name(folder: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise _no_room(folder, error) from error


def _no_room(folder: Path, error: OSError) -> InputError:
    return InputError(f"{NAME} could not be copied to {folder} ({error.strerror}); make room there")


class _Piped(Stream):
    """A pipe, as a file that can be opened again and again until ``decided``, and once after that."""

    once = True

    def __init__(self, pipe: int, spool: IO[bytes], folder: Path, wait: Callable[[int], None]) -> None:
        super().__init__(STDIN, NAME)
        self._pipe = pipe
        self._spool = spool
        self._folder = folder
        self._wait = wait
        self._kept = 0  # bytes in the spool: all that came until it was decided
        self._came = 0
        self._ended = False
        self._decided = False
        self._plain: bool | None = None
        self._reader: io.BufferedReader[Any] | None = None  # the one in use
        self._patient = True

    @property
    def plain(self) -> bool:
        if self._plain is None:
            self._plain = super().plain
        return self._plain

    @contextmanager
    def stored(self) -> Iterator[BinaryIO]:
        before = self._reader
        with io.BufferedReader(_Reader(self), BUFFER) as reader:
            self._reader = reader
            try:
                yield reader
            finally:
                self._reader = before

    def decided(self) -> None:
        self._decided = True

    def at_hand(self) -> bool:
        """Return whether a whole line was read already; of a compressed source, which nobody follows, True."""
        if self._reader is None or not self.plain:
            return True
        self._patient = False
        try:
            return b"\n" in self._reader.peek()
        finally:
            self._patient = True

    def read_at(self, position: int, size: int) -> bytes | None:
        """Return some bytes from ``position`` on; none at the end, and None where they would have to be waited for.

        Raises:
            InputError: the pipe can't be read, or what comes can't be kept.
        """
        while position > self._came and not self._ended:
            if self._receive(size) is None:
                return None
        if position >= self._came:
            return b"" if self._ended else self._receive(size)
        if position >= self._kept:
            raise RuntimeError(f"{NAME} was read on, and is read again from byte {position}")
        return os.pread(self._spool.fileno(), size, position)

    def _receive(self, size: int) -> bytes | None:
        data = None
        while data is None:
            if not self._patient and not self._ready():
                return None
            self._wait(self._pipe)
            try:
                data = os.read(self._pipe, size)
            except BlockingIOError:  # somebody else who reads it was quicker
                pass
            except OSError as error:
                raise InputError(f"{NAME}: can't be read ({error.strerror}); pipe something into it") from error
        self._ended = not data
        self._keep(data)
        self._came += len(data)
        return data

    def _ready(self) -> bool:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        return bool(poll.poll(0))

    def _keep(self, data: bytes) -> None:
        if self._decided:
            if self._kept:  # all of it was read
                self._kept = 0
                self._spool.close()
            return
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(self._spool.fileno(), view, self._kept)
                self._kept += written
                view = view[written:]
        except OSError as error:
            raise _no_room(self._folder, error) from error


class _Reader(io.RawIOBase):
    """One reading of a pipe, from its beginning."""

    def __init__(self, piped: _Piped) -> None:
        self._piped = piped
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        target = memoryview(buffer).cast("B")
        data = self._piped.read_at(self._at, len(target))
        if data is None:
            return None
        target[: len(data)] = data
        self._at += len(data)
        return len(data)
