"""Walking over a segment's frames, whatever state it is in.

Bytes come through a function ``read(offset, size)`` rather than a mapping: the writer may cut the last segment's tail
meanwhile, and touching a mapping beyond the end of its file is SIGBUS, where a read is merely short.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import NamedTuple

from mos_pipeline.errors import StoreDamagedError
from mos_pipeline.store.codec import HEADER_BYTES, MAGIC, FrameHeader, FrameKind, check_body, decode_body, parse_header

__all__ = ["Damaged", "Frame", "Read", "Torn", "find_tear", "scan_frames"]

WINDOW = 1 << 16

Read = Callable[[int, int], bytes]


class Frame(NamedTuple):
    """A whole frame; ``length`` in bytes includes the header, ``body`` is unpacked, or empty where nobody wants it."""

    offset: int
    length: int
    kind: FrameKind
    last_page: int
    body: bytes
    generation: int = 0


class Damaged(NamedTuple):
    """Bytes between frames, or of a frame, that can't be used."""

    offset: int
    length: int
    reason: str


class Torn(NamedTuple):
    """The beginning of something whose writing was broken off, at the end of the file."""

    offset: int
    length: int


class _Located(NamedTuple):
    offset: int
    header: FrameHeader


def scan_frames(
    read: Read, size: int, wanted: Container[FrameKind] = frozenset(FrameKind), start: int = 0
) -> Iterator[Frame | Damaged | Torn]:
    """Yield every frame from ``start`` on of a file of ``size`` bytes, in order, with what is damaged between them.

    Bodies of the ``wanted`` kinds are unpacked, of others only the checksum is looked at. At most one frame is in
    memory. A wrong body costs its frame; after a wrong header it goes on at the next valid one.
    ``Torn`` comes last, if at all.
    """
    for item in _walk(read, size, start):
        yield _frame(read, item, wanted) if isinstance(item, _Located) else item


def find_tear(read: Read, size: int) -> Torn | None:
    """Return the torn tail of a file of ``size`` bytes; only the headers are read."""
    for item in _walk(read, size):
        if isinstance(item, Torn):
            return item
    return None


def _frame(read: Read, located: _Located, wanted: Container[FrameKind]) -> Frame | Damaged:
    offset, header = located
    length = HEADER_BYTES + header.stored
    try:
        stored = read(offset + HEADER_BYTES, header.stored)
        kind, body = check_body(header, stored), b""
        if kind in wanted:
            kind, body = decode_body(header, stored)
    except StoreDamagedError as error:
        return Damaged(offset, length, str(error))
    return Frame(offset, length, kind, header.last_page, body, header.generation)


def _walk(read: Read, size: int, offset: int = 0) -> Iterator[_Located | Damaged | Torn]:
    while offset < size:
        header = parse_header(read(offset, HEADER_BYTES))
        if header is None:
            following = _next_header(read, size, offset + 1)
            if following is None:
                yield _tail(read, size, offset)
                return
            yield Damaged(offset, following - offset, "there is no valid frame header")
            offset = following
        elif offset + HEADER_BYTES + header.stored > size:
            yield Torn(offset, size - offset)
            return
        else:
            yield _Located(offset, header)
            offset += HEADER_BYTES + header.stored


def _next_header(read: Read, size: int, start: int) -> int | None:
    """Return the offset of the first valid header from ``start`` on."""
    while start < size:
        window = read(start, WINDOW)
        at = window.find(MAGIC)
        while at >= 0:
            if parse_header(read(start + at, HEADER_BYTES)):
                return start + at
            at = window.find(MAGIC, at + 1)
        start += WINDOW - len(MAGIC) + 1  # the magic may lie across two windows
    return None


def _tail(read: Read, size: int, offset: int) -> Damaged | Torn:
    """Tell a torn tail (part of a header, or the zeros that a loss of power leaves) from damage."""
    torn = size - offset < HEADER_BYTES or all(
        not read(start, min(WINDOW, size - start)).strip(b"\0") for start in range(offset, size, WINDOW)
    )
    if torn:
        return Torn(offset, size - offset)
    return Damaged(offset, size - offset, "there is no valid frame header up to the end")
