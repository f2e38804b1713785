from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from zlib import crc32

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import ConfigError, InputError, StoreDamagedError
from mos_pipeline.messages import PageRecord, encode
from mos_pipeline.store import codec
from mos_pipeline.store.codec import (
    HEADER_BYTES,
    MAGIC,
    FrameKind,
    check_level,
    decode_frame,
    encode_frame,
    pack_pages,
    pack_vectors,
    parse_header,
    unpack_pages,
    unpack_vectors,
)
from mos_pipeline.store.heads import heads_of, pack_heads

kinds = st.sampled_from(FrameKind)


@given(kinds, st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (text * 9).encode()), st.integers(1, 9))
def test_frame_round_trip(kind: FrameKind, body: bytes, level: int) -> None:
    frame = encode_frame(kind, body, level)
    assert decode_frame(frame) == (kind, body)
    assert len(frame) <= HEADER_BYTES + len(body)


@pytest.mark.parametrize("kind", FrameKind)
@pytest.mark.parametrize("size", [8191, 8192, 8193, 16384, 300_000])
def test_a_long_frame_round_trips(kind: FrameKind, size: int) -> None:
    for body in (
        os.urandom(size),
        (b"again and again " * size)[:size],
        os.urandom(size // 2) + bytes(size - size // 2),
    ):
        frame = encode_frame(kind, body, 3)
        assert decode_frame(frame) == (kind, body)
        assert len(frame) <= HEADER_BYTES + size


@pytest.mark.parametrize("kind", [FrameKind.VECTORS, FrameKind.STATE, FrameKind.EVENTS])
def test_of_vectors_their_exponents_and_text_among_them_shrink(kind: FrameKind) -> None:
    rows = np.random.default_rng(7).normal(0.0, 384**-0.5, (70, 384)).astype(np.float16)
    packed, text = pack_vectors(rows), b"what was said of the harbour and the violin " * 200
    frame = encode_frame(kind, text + packed, 3)
    high, low = packed[: len(packed) // 2], packed[len(packed) // 2 :]
    apart = sum(len(encode_frame(kind, part, 3)) for part in (text, high, low))
    assert len(frame) < 1.015 * apart  # in blocks of 32 KiB 1.04
    assert len(frame) < 0.88 * len(packed)


def test_a_long_body_has_few_blocks() -> None:
    body = pack_vectors(np.random.default_rng(7).normal(0.0, 384**-0.5, (4000, 384)).astype(np.float16))
    assert len(encode_frame(FrameKind.STATE, body, 3)) < 1.001 * len(encode_frame(FrameKind.PAGES, body, 3))


@pytest.mark.parametrize("kind", [FrameKind.PAGES, FrameKind.WORDS])
def test_what_has_no_vectors_is_compressed_as_a_whole(kind: FrameKind) -> None:
    body = " ".join(f"number {number} of {number % 7}" for number in range(4000)).encode()
    assert decode_frame(encode_frame(kind, body, 3)) == (kind, body)
    assert len(encode_frame(kind, body, 3)) == HEADER_BYTES + len(zstandard.ZstdCompressor(level=3).compress(body))


@given(st.binary(min_size=1, max_size=60) | st.just(b"again and again " * 20), st.data())
def test_any_changed_byte_is_noticed(body: bytes, data: st.DataObject) -> None:
    frame = bytearray(encode_frame(FrameKind.BATCH, body, 3))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreDamagedError):
        decode_frame(bytes(frame))


def test_cut_frame_is_noticed_at_every_length() -> None:
    frame = encode_frame(FrameKind.BATCH, b"text " * 30, 3)
    for length in range(len(frame)):
        with pytest.raises(StoreDamagedError):
            decode_frame(frame[:length])


def test_header_layout() -> None:
    frame = encode_frame(FrameKind.VECTORS, b"a" * 1000, 3, 77)
    fields = struct.unpack("<4sBBBBIIIqI", frame[:32])
    magic, version, kind, flags, zero, stored, raw, body_crc, last_page, header_crc = fields
    assert (magic, version, kind, flags, zero, raw, last_page) == (MAGIC, 1, 3, 0, 0, 1000, 77)
    assert stored == len(frame) - 32 < 100
    assert (body_crc, header_crc) == (crc32(frame[32:]), crc32(frame[:28]))
    assert zstandard.ZstdDecompressor().decompress(frame[32:]) == b"a" * 1000


def test_what_does_not_shrink_is_stored_plain() -> None:
    noise = os.urandom(500)
    header = parse_header(encode_frame(FrameKind.BATCH, noise, 3))
    assert header is not None
    assert (header.flags, header.stored) == (codec.PLAIN, 500)


def test_what_zstd_fails_on_is_stored_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(body: bytes, level: int) -> bytes:
        raise zstandard.ZstdError("out of luck")

    monkeypatch.setattr(codec._Coders, "compressor", fail)
    frame = encode_frame(FrameKind.BATCH, b"text " * 100, 3)
    assert len(frame) == HEADER_BYTES + 500
    assert decode_frame(frame) == (FrameKind.BATCH, b"text " * 100)


def forged(version: int, kind: int, flags: int, stored: bytes, raw: int) -> bytes:
    header = struct.pack("<4sBBBBIIIq", MAGIC, version, kind, flags, 0, len(stored), raw, crc32(stored), -1)
    return header + struct.pack("<I", crc32(header)) + stored


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (forged(2, 1, 1, b"x", 1), "version 2"),
        (forged(1, 77, 1, b"x", 1), "kind 77"),
        (forged(1, 1, 0, b"not zstd", 9), "decompressed"),
        (forged(1, 1, 1, b"four", 5), "its header says 5"),
        (forged(1, 1, 0, zstandard.compress(b"a" * 99), 98), "its header says 98"),
    ],
)
def test_right_checksums_are_not_enough(frame: bytes, reason: str) -> None:
    with pytest.raises(StoreDamagedError, match=reason):
        decode_frame(frame)


def test_too_long_a_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BODY", 10)
    with pytest.raises(InputError, match="11 bytes"):
        encode_frame(FrameKind.PAGES, b"a" * 11, 3)


def test_level_that_zstd_does_not_have() -> None:
    check_level(22)
    with pytest.raises(ConfigError, match="at most 22, found 23"):
        check_level(23)


def test_threads_do_not_disturb_each_other() -> None:
    bodies = [os.urandom(20) * 500 for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert [
            body for _, body in pool.map(lambda b: decode_frame(encode_frame(FrameKind.BATCH, b, 3)), bodies)
        ] == bodies


@given(st.integers(0, 2**63), st.lists(st.binary(max_size=50), max_size=20))
def test_pages_round_trip(first_seq: int, records: list[bytes]) -> None:
    page = encode(PageRecord("user", "assistant", "", "", "", None, "mine", None))
    heads = heads_of([page] * len(records))
    assert unpack_pages(pack_pages(first_seq, heads, records)) == (first_seq, heads, records)


@given(st.integers(-1, 2**63 - 1))
def test_a_header_tells_the_last_page(last_page: int) -> None:
    header = parse_header(encode_frame(FrameKind.WORDS, b"body", 3, last_page))
    assert header is not None
    assert header.last_page == last_page


HEADS = pack_heads(heads_of([]))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        encode(5),
        encode([1]),
        encode([1, HEADS, ["text"]]),
        encode([b"1", HEADS, []]),
        encode([1, [], []]),
        encode([1, [[], b"123", [], []], []]),
    ],
)
def test_other_bodies_are_not_pages(body: bytes) -> None:
    with pytest.raises(StoreDamagedError):
        unpack_pages(body)


@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_vectors_round_trip_bit_by_bit(rows: int, dimension: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 1 << 16, (rows, dimension), np.uint16)
    unpacked = unpack_vectors(pack_vectors(bits.view(np.float16)), dimension)
    assert unpacked.dtype == np.float16
    assert unpacked.shape == (rows, dimension)
    assert np.array_equal(unpacked.view(np.uint16), bits)


def test_vectors_are_packed_high_bytes_first_from_any_layout() -> None:
    array = np.array([[1.0, -2.0], [0.5, 3.0]], np.float16)
    assert pack_vectors(array)[:4] == bytes([0x3C, 0xC0, 0x38, 0x42])
    assert pack_vectors(array.T) == pack_vectors(np.ascontiguousarray(array.T))
    unpack_vectors(pack_vectors(array), 2)[0, 0] = 9  # a copy that may be written to


@pytest.mark.parametrize(("size", "dimension"), [(3, 1), (8, 3), (4, 0)])
def test_parts_of_vectors_are_refused(size: int, dimension: int) -> None:
    with pytest.raises(InputError, match="whole number"):
        unpack_vectors(bytes(size), dimension)
