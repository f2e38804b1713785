"""Where bytes come from: files, plain or compressed (told by their first bytes), and folders of files."""

from __future__ import annotations

import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from mos_pipeline.errors import InputError, MosError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["STDIN", "Stream", "available", "files_below"]

STDIN = Path("-")
# Each read gives up the interpreter lock, and beside a busy thread it takes milliseconds to get it back.
BUFFER = 256 << 10
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
GZIP_WRAPPED = 31  # zlib's way to say: with gzip's header and checksum
GZIP_STEP, MOST_AT_ONCE = 64 << 10, 256 << 10
# Compressed bytes at once: zstd's decompressor has no limit for what becomes of them, up to 128 KiB of four of them.
ZSTD_STEP = 256


class Stream:
    """A source of bytes that can be opened again and again, and reads as if it were not compressed.

    Attributes:
        name: how it is called in messages.
        once: whether it comes from a pipe, and may never end; see ``piped``.
    """

    once = False

    def __init__(self, path: Path, name: str = "", open_file: BinaryIO | None = None) -> None:
        """Read the file ``path``; or ``open_file``, which stays open."""
        self.path = path
        self.name = name or str(path)
        self._file = open_file

    @property
    def plain(self) -> bool:
        """Whether a place in it can be gone to without reading what is before."""
        with self.stored() as file:
            return not file.read(len(ZSTD)).startswith((GZIP, ZSTD))

    @contextmanager
    def stored(self) -> Iterator[BinaryIO]:
        """Open it as it is stored.

        Raises:
            InputError: it is not there, not readable or no regular file (it is read more than once, so a pipe won't
                do); or reading fails inside the ``with``.
        """
        try:
            if self._file is not None:
                before = self._file.tell()
                self._file.seek(0)
                try:
                    yield self._file
                finally:
                    self._file.seek(before)  # where somebody else reads it, who wants to know what was before
                return
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise InputError(f"{self.name}: not a regular file; write its content to one first, or pipe it into -")
            with self.path.open("rb", BUFFER) as file:
                yield file
        except MosError:  # of whoever reads; one of them is an OSError, too
            raise
        except OSError as error:
            raise InputError(f"{self.name}: can't be read ({error.strerror}); name a readable file") from error

    def decided(self) -> None:
        """Note that from now on it is read once, from one place on."""

    def at_hand(self) -> bool:
        """Return whether the next line can be read without waiting for whoever writes it."""
        return True

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open it for reading what it holds. ``read(n)`` may return fewer bytes; none only at the end.

        Raises:
            InputError: as ``stored``; or while reading, naming the offset of compressed bytes that are damaged or end
                too early. What frames before that hold has been read, and of its own frame what was unpacked by then.
        """
        with self.stored() as file:
            magic = file.read(len(ZSTD))
            file.seek(0)
            if magic.startswith(GZIP):
                yield io.BufferedReader(_Inflating(file, self.name, _Gzip), BUFFER)
            elif magic == ZSTD:
                yield io.BufferedReader(_Inflating(file, self.name, _Zstd), BUFFER)
            else:
                yield file


def available(file: BinaryIO, size: int) -> bytes:
    """Return up to ``size`` bytes, at least one but at the end: those before damaged ones are not lost with them."""
    read1 = getattr(file, "read1", file.read)
    found: bytes = read1(size)
    return found


class _Decompressor(Protocol):
    """One compressed frame, or gzip's member."""

    step: int

    def decompress(self, data: bytes) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def pending(self) -> bytes: ...

    @property
    def after(self) -> bytes: ...


class _Gzip:
    """``pending`` is what it was given and has not used; ``after`` is what follows its end."""

    step = GZIP_STEP

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(GZIP_WRAPPED)

    def decompress(self, data: bytes) -> bytes:
        return self._inner.decompress(data, MOST_AT_ONCE)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def pending(self) -> bytes:
        return self._inner.unconsumed_tail

    @property
    def after(self) -> bytes:
        return self._inner.unused_data.lstrip(b"\0")  # some tools pad


class _Zstd:
    """Likewise; it uses all that it is given."""

    step = ZSTD_STEP
    pending = b""

    def __init__(self) -> None:
        import zstandard

        self._inner = zstandard.ZstdDecompressor().decompressobj()

    def decompress(self, data: bytes) -> bytes:
        return self._inner.decompress(data)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def after(self) -> bytes:
        return self._inner.unused_data


class _Inflating(io.RawIOBase):
    """Frames of compressed data, one after the other, as the bytes that they hold."""

    def __init__(self, file: BinaryIO, name: str, kind: type[_Gzip] | type[_Zstd]) -> None:
        self._file = file
        self._name = name
        self._kind = kind
        self._frame: _Decompressor | None = kind()
        self._given = b""  # read from the file, and still to be given to the frame
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._ready and self._frame is not None:
            self._ready = memoryview(self._more(self._frame))
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _more(self, frame: _Decompressor) -> bytes:
        """Return what comes next, maybe nothing."""
        data = self._given or self._file.read(frame.step)
        if not data:
            raise self._damaged("the compressed data ends too early, the file may have been cut off", 0)
        try:
            found = frame.decompress(data)
        except Exception as error:
            if not _is_damage(error):
                raise
            raise self._damaged(f"the compressed data is damaged ({error})", len(data)) from None
        self._given = frame.pending
        if frame.eof:
            self._given = frame.after or self._file.read(frame.step).lstrip(b"\0")
            self._frame = self._kind() if self._given else None
        return found

    def _damaged(self, what: str, back: int) -> InputError:
        at = self._file.tell() - back
        return InputError(f"{self._name}: {what} at byte {at:,}; what comes before was read, get a whole copy")


def _is_damage(error: Exception) -> bool:
    import zstandard

    return isinstance(error, zlib.error | zstandard.ZstdError)


def files_below(folder: Path) -> list[Path]:
    """Return the regular files in ``folder`` and its folders, sorted; nothing hidden, and no folder that is a link.

    Raises:
        InputError: a folder can't be read.
    """
    found = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                found += [] if path.is_symlink() else files_below(path)
            elif path.is_file():
                found.append(path)
    except OSError as error:
        raise InputError(
            f"{error.filename}: can't be read ({error.strerror}); leave it out, or make it readable"
        ) from None
    return found
