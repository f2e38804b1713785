"""Frames, the unit of a segment, and what is in them.

A frame is a header of 32 bytes, little endian, and a body:

    magic "MOSF" | version u8 | kind u8 | flags u8 | vector generation u8 |
    stored length u32 | raw length u32 | body CRC u32 | last page i64 | header CRC u32

The vector generation tells whether vectors in it are those of the store's present model: they are where it is that of
MANIFEST. The last page is the highest sequence number that the frame holds or speaks of, -1 where there is none:
opening need not unpack a frame to know it.

The body is one zstd frame, or plain (flag bit 0) where compression fails or gains nothing; its CRC-32 is that of the
stored bytes. Unpacked, every body is one msgpack message; that of a PAGES frame is ``[first_seq, heads, [record, …]]``,
the records being the journal's bytes unchanged, of consecutive sequence numbers, and the heads what opening has to know
of them. Where a page was forgotten and is gone for good, its record is empty.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import zstandard

from mos_pipeline.errors import ConfigError, InputError, StoreDamagedError
from mos_pipeline.messages import decode, encode
from mos_pipeline.store.heads import NUMBER_BYTES, PageHeads, pack_heads, unpack_heads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "GENERATIONS",
    "HEADER_BYTES",
    "MAGIC",
    "NO_PAGE",
    "SCOPE_KINDS",
    "FrameHeader",
    "FrameKind",
    "FramePages",
    "check_body",
    "check_level",
    "decode_body",
    "decode_frame",
    "encode_frame",
    "pack_pages",
    "pack_vectors",
    "parse_header",
    "unpack_pages",
    "unpack_records",
    "unpack_vectors",
]

MAGIC = b"MOSF"
VERSION = 1
PLAIN = 1
MAX_BODY = (1 << 32) - 1
NO_PAGE = -1

_HEADER = struct.Struct("<4sBBBBIIIq")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size


class FrameKind(IntEnum):
    """What a frame holds."""

    PAGES = 1
    BATCH = 2
    VECTORS = 3
    ASIDE = 4
    WORDS = 5  # words of pages
    STATE = 6  # scopes' mid- and long-term memory; replaces what frames of SCOPE_KINDS said before
    EVENTS = 7  # what happened to scopes' mid- and long-term memory


# Noise, but for their exponents: a higher level takes three times as long, and not a byte less.
VECTOR_LEVEL = 1
# zstd has one code for all literals of a block, of 128 KiB by itself: for high bytes, low ones and text alike.
VECTOR_BLOCK_BYTES = 8 << 10
VECTOR_BLOCKS = 32  # at the most: of a long body few blocks are mixed
GENERATIONS = 256  # of vectors that frames can tell apart

# What frames of these kinds tell of a scope, a later STATE frame tells anew.
SCOPE_KINDS = frozenset(
    (FrameKind.BATCH, FrameKind.STATE, FrameKind.EVENTS),
)

_WITH_VECTORS = SCOPE_KINDS | {FrameKind.VECTORS}
_KINDS = frozenset(map(int, FrameKind))


class FrameHeader(NamedTuple):
    """A header whose CRC is right; lengths in bytes."""

    version: int
    kind: int
    flags: int
    generation: int
    stored: int
    raw: int
    checksum: int
    last_page: int


class FramePages(NamedTuple):
    """What a PAGES frame holds: records of ``first_seq``, ``first_seq + 1``, …, and the heads of them all."""

    first_seq: int
    heads: PageHeads
    records: list[bytes]


class _Coders(threading.local):
    """Each thread's own: zstandard's objects are costly to make and not thread-safe."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        if level not in self.compressors:
            self.compressors[level] = zstandard.ZstdCompressor(level=level)
        return self.compressors[level]


_coders = _Coders()


def check_level(level: int) -> None:
    """Refuse a compression level that zstd does not have.

    Raises:
        ConfigError: it is too high.
    """
    if level > zstandard.MAX_COMPRESSION_LEVEL:
        limit = zstandard.MAX_COMPRESSION_LEVEL
        raise ConfigError(f"store.compression_level must be at most {limit}, found {level}")


def encode_frame(kind: FrameKind, body: bytes, level: int, last_page: int = NO_PAGE, generation: int = 0) -> bytes:
    """Return the frame of ``body``, compressed at zstd ``level`` where that makes it shorter.

    ``generation`` is that of its vectors, 0 to 255.

    Raises:
        InputError: the body has 4 GiB or more.
    """
    if len(body) > MAX_BODY:
        raise InputError(f"a frame of {len(body)} bytes is too long (the limit is {MAX_BODY}); split it")
    level = min(level, VECTOR_LEVEL) if kind == FrameKind.VECTORS else level
    block_bytes = max(VECTOR_BLOCK_BYTES, -(-len(body) // VECTOR_BLOCKS)) if kind in _WITH_VECTORS else len(body)
    stored, flags = _compressed(body, level, block_bytes), 0
    if len(stored) >= len(body):
        stored, flags = body, PLAIN
    header = _HEADER.pack(MAGIC, VERSION, kind, flags, generation, len(stored), len(body), crc32(stored), last_page)
    return header + _CRC.pack(crc32(header)) + stored


def _compressed(body: bytes, level: int, block_bytes: int) -> bytes:
    try:
        compressor = _coders.compressor(level)
        if len(body) <= block_bytes:
            return compressor.compress(body)
        stream = compressor.compressobj(size=len(body))
        parts = []
        for start in range(0, len(body), block_bytes):
            parts.append(stream.compress(body[start : start + block_bytes]))
            parts.append(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
        return b"".join((*parts, stream.flush()))
    except (zstandard.ZstdError, MemoryError):
        return body  # stored plain by the caller: a page must not be lost to its compression


def parse_header(data: bytes) -> FrameHeader | None:
    """Return the header that ``data`` begins with, or None where there is no valid one."""
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        return None
    if _CRC.unpack_from(data, _HEADER.size)[0] != crc32(data[: _HEADER.size]):
        return None
    return FrameHeader(*_HEADER.unpack_from(data)[1:])


def check_body(header: FrameHeader, stored: bytes) -> FrameKind:
    """Return the kind of a frame with this header and these stored bytes, once they are known to be whole.

    Raises:
        StoreDamagedError: the bytes are not those that were written, or of a version or kind that is not known here;
            the message is a bare reason, for the caller to add file and offset.
    """
    if header.version != VERSION or header.kind not in _KINDS:
        raise StoreDamagedError(f"version {header.version}, kind {header.kind} of frame is not known")
    if len(stored) != header.stored or crc32(stored) != header.checksum:
        raise StoreDamagedError("the body's checksum is wrong")
    return FrameKind(header.kind)


def decode_body(header: FrameHeader, stored: bytes) -> tuple[FrameKind, bytes]:
    """Return kind and unpacked body of a frame with this header and these stored bytes.

    Raises:
        StoreDamagedError: as from ``check_body``; also where they can't be unpacked.
    """
    kind = check_body(header, stored)
    try:
        body = stored if header.flags & PLAIN else _decompressed(stored, header.raw)
    except zstandard.ZstdError as error:
        raise StoreDamagedError(f"the body can't be decompressed ({error})") from None
    if len(body) != header.raw:
        raise StoreDamagedError(f"the body has {len(body)} bytes, its header says {header.raw}")
    return kind, body


def _decompressed(stored: bytes, size: int) -> bytes:
    """Return ``stored`` unpacked, where it says itself that it has ``size`` bytes: so many are asked for at once."""
    told = zstandard.frame_content_size(stored)
    if told != size:
        raise StoreDamagedError(f"the body has {told} bytes, its header says {size}")
    return _coders.decompressor.decompress(stored)


def decode_frame(data: bytes) -> tuple[FrameKind, bytes]:
    """Return kind and body of the frame that ``data`` is.

    Raises:
        StoreDamagedError: as from ``decode_body``; also where header or length are wrong.
    """
    header = parse_header(data)
    if header is None:
        raise StoreDamagedError("there is no valid frame header")
    return decode_body(header, data[HEADER_BYTES:])


def pack_pages(first_seq: int, heads: PageHeads, records: Sequence[bytes]) -> bytes:
    """Return the body of a PAGES frame: ``records`` of the sequence numbers ``first_seq``, ``first_seq + 1``, …"""
    return encode([first_seq, pack_heads(heads), list(records)])


def unpack_pages(body: bytes) -> FramePages:
    """Return what ``pack_pages`` was given.

    Raises:
        StoreDamagedError: it is not the body of a PAGES frame.
    """
    try:
        content: Any = decode(body)
        match content:
            case [int(first_seq), [*heads], list(records)] if all(type(record) is bytes for record in records):
                pages = FramePages(first_seq, unpack_heads(heads), records)
                if first_seq >= 0 and len(pages.heads.scope_of) == NUMBER_BYTES * len(records):
                    return pages
    except (ValueError, TypeError) as error:
        raise StoreDamagedError(f"the pages are not valid msgpack ({error})") from None
    raise StoreDamagedError("the body is not a list of pages")


def unpack_records(body: bytes) -> tuple[int, list[bytes]]:
    """Return the first number and the records of a PAGES frame's body, for whoever wants a page of it alone.

    Raises:
        StoreDamagedError: it is not the body of a PAGES frame.
    """
    try:
        first_seq, _, records = decode(body)
    except (ValueError, TypeError) as error:
        raise StoreDamagedError(f"the pages are not valid msgpack ({error})") from None
    if type(first_seq) is not int or type(records) is not list:
        raise StoreDamagedError("the body is not a list of pages")
    return first_seq, records


def pack_vectors(vectors: npt.NDArray[np.float16]) -> bytes:
    """Return a float16 array of shape (n, d) as all high bytes, then all low bytes: so it compresses better."""
    import numpy as np

    halves = np.ascontiguousarray(vectors, "<f2").view(np.uint8).reshape(-1, 2)
    return halves[:, 1].tobytes() + halves[:, 0].tobytes()


def unpack_vectors(data: bytes, dimension: int) -> npt.NDArray[np.float16]:
    """Return the float16 array of shape (n, ``dimension``) that ``pack_vectors`` was given.

    Raises:
        InputError: ``data`` is not a whole number of rows.
    """
    import numpy as np

    if dimension < 1 or len(data) % (2 * dimension):
        raise InputError(f"{len(data)} bytes are not a whole number of float16 rows of dimension {dimension}")
    halves = np.empty((len(data) // 2, 2), np.uint8)
    halves[:, 1], halves[:, 0] = np.frombuffer(data, np.uint8).reshape(2, -1)
    return halves.view("<f2").reshape(-1, dimension)
