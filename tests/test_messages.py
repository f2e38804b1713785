from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.messages import (
    decode_tombstone,
    encode,
    encode_tombstone,
    has_compound_key,
    is_shallow,
    is_tombstone,
    nested_too_deeply,
    pack_seqs,
    unpack_seqs,
)

seqs = st.sets(st.integers(0, 1 << 60), max_size=30).map(sorted)


@given(st.lists(st.integers(0, 1 << 60), max_size=30))
def test_packed_numbers_come_back_in_their_order(numbers: list[int]) -> None:
    assert unpack_seqs(pack_seqs(numbers)) == numbers


@given(seqs.filter(bool))
def test_tombstone_round_trip(numbers: list[int]) -> None:
    assert decode_tombstone(encode_tombstone(numbers)) == numbers


def test_neighbours_take_a_byte_each() -> None:
    assert len(encode_tombstone(range(1_000_000, 1_001_000))) < 1_040


@pytest.mark.parametrize("numbers", [[], [-1], [1, 1], [2, 1]])
def test_only_ascending_numbers_make_a_tombstone(numbers: list[int]) -> None:
    with pytest.raises(InputError, match="ascending"):
        encode_tombstone(numbers)


@pytest.mark.parametrize("body", [encode(["forget", "a", "", "", "", None, None, None]), encode(["forgot", b""]), b""])
def test_other_records_are_no_tombstones(body: bytes) -> None:
    assert decode_tombstone(body) is None
    assert not is_tombstone(body)


@pytest.mark.parametrize("rest", [7, b"\xc1", b"", b"\x91\xa1a", b"\x01"])
def test_broken_tombstone_is_told(rest: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_tombstone(encode(["forget", rest]))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.tuples(st.integers()), inner, max_size=3)
        | st.tuples(inner)
    ),
)


@given(st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3) | values, max_size=4))
def test_shallow_is_what_holds_scalars_and_lists_of_them(metadata: dict[str, Any]) -> None:
    inner = [item for value in metadata.values() for item in (value if type(value) is list else [value])]
    assert is_shallow(metadata) == (not any(isinstance(item, dict | list | tuple) for item in inner))
    if is_shallow(metadata):
        assert not has_compound_key(metadata)
        assert not nested_too_deeply(metadata)
