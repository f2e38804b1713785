from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.store import scanning
from mos_pipeline.store.codec import HEADER_BYTES, MAGIC, FrameKind, encode_frame
from mos_pipeline.store.scanning import Damaged, Frame, Torn, find_tear, scan_frames
from tests.store.common import from_bytes

bodies = st.lists(st.binary(max_size=80), max_size=8)


def scan(data: bytes) -> list[Frame | Damaged | Torn]:
    return list(scan_frames(from_bytes(data), len(data)))


def joined(contents: list[bytes]) -> tuple[bytes, list[int]]:
    """Return the frames' bytes, and the offsets where frames begin, with the end."""
    frames = [encode_frame(FrameKind.BATCH, body, 3) for body in contents]
    offsets = [sum(map(len, frames[:index])) for index in range(len(frames) + 1)]
    return b"".join(frames), offsets


@given(bodies)
def test_whole_frames(contents: list[bytes]) -> None:
    data, offsets = joined(contents)
    found = scan(data)
    assert [item.body for item in found if isinstance(item, Frame)] == contents
    assert [item.offset for item in found] == offsets[:-1]
    assert find_tear(from_bytes(data), len(data)) is None


def test_flipped_byte_at_every_position_costs_its_frame_alone() -> None:
    contents = [b"first", b"second second second second second", b"", b"fourth"]
    data, offsets = joined(contents)
    for at in range(len(data)):
        hit = max(index for index, offset in enumerate(offsets[:-1]) if offset <= at)
        found = scan(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        assert [i.body for i in found if isinstance(i, Frame)] == contents[:hit] + contents[hit + 1 :]
        assert [i[:2] for i in found if isinstance(i, Damaged)] == [(offsets[hit], offsets[hit + 1] - offsets[hit])]


def test_torn_at_every_length() -> None:
    contents = [b"first", b"second " * 9, b"third"]
    data, offsets = joined(contents)
    for length in range(len(data)):
        found = scan(data[:length])
        whole = sum(offset <= length for offset in offsets[1:])
        assert [i.body for i in found if isinstance(i, Frame)] == contents[:whole]
        rest = length - offsets[whole]
        expected = [Torn(offsets[whole], rest)] if rest else []
        assert [i for i in found if not isinstance(i, Frame)] == expected
        assert find_tear(from_bytes(data[:length]), length) == (expected[0] if expected else None)


def test_zeros_at_the_end_are_torn_and_noise_is_damage() -> None:
    data, _ = joined([b"first"])
    assert scan(data + bytes(500))[1:] == [Torn(len(data), 500)]
    (damaged,) = scan(data + b"x" * 500)[1:]
    assert isinstance(damaged, Damaged)
    assert damaged[:2] == (len(data), 500)


@pytest.mark.parametrize("gap", [1, 31, 32, 100, scanning.WINDOW - 2, scanning.WINDOW, 2 * scanning.WINDOW + 7])
def test_goes_on_after_a_gap_of_any_length(gap: int) -> None:
    frame = encode_frame(FrameKind.ASIDE, b"body", 3)
    found = scan(b"?" * gap + frame)
    assert [type(item) for item in found] == [Damaged, Frame]
    assert found[1].offset == gap


def test_magic_in_a_gap_does_not_mislead() -> None:
    frame = encode_frame(FrameKind.ASIDE, b"body", 3)
    found = scan(MAGIC * 3 + b"??" + MAGIC + frame)
    assert [(type(item), item.offset) for item in found] == [(Damaged, 0), (Frame, 18)]


@given(bodies, st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=40)), max_size=5))
def test_every_byte_is_accounted_for_whatever_happened(contents: list[bytes], edits: list[tuple[int, bytes]]) -> None:
    data, _ = joined(contents)
    for at, new in edits:
        data = data[: at % (len(data) + 1)] + new + data[at % (len(data) + 1) + len(new) // 2 :]
    offset = 0
    for item in scan(data):
        assert item.offset == offset
        assert item.length > 0
        offset += item.length
    assert offset == len(data)


def test_file_that_is_cut_while_it_is_read_is_no_error() -> None:
    data, offsets = joined([b"first", b"second"])
    found = list(scan_frames(from_bytes(data[: offsets[1] + HEADER_BYTES + 2]), len(data)))
    assert [type(item) for item in found] == [Frame, Damaged]
