from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.messages import decode, encode
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.derived import (
    PageSet,
    VectorFrame,
    WordFrame,
    decode_vectors,
    decode_words,
    encode_aside,
    encode_vectors,
    encode_words,
    without_pages,
)

pages = st.lists(st.integers(0, 30), unique=True, max_size=12)
sets = st.sets(st.integers(-3, 33))


def column(seqs: list[int]) -> npt.NDArray[np.int64]:
    return np.array(seqs, np.int64)


def vectors_of(seqs: list[int], dimension: int) -> bytes:
    rows = np.array([np.arange(dimension) + 100 * seq for seq in seqs], np.float16).reshape(-1, dimension)
    return encode_vectors(VectorFrame(column(seqs), rows, column(seqs).astype(np.uint64) + 7))


def words_of(seqs: list[int]) -> bytes:
    """Page n has n % 4 words, n * 10, n * 10 + 1, …"""
    words = [(10 * seq + word, word + 1) for seq in seqs for word in range(seq % 4)]
    hashes, counts = np.array(words, np.uint32).reshape(-1, 2).T
    sizes = np.array([seq % 4 for seq in seqs], np.uint32)
    return encode_words(5, WordFrame(column(seqs), sizes, hashes, counts.astype(np.uint8), np.array(seqs, np.uint32)))


@given(pages, sets, st.integers(1, 5))
def test_vectors_without_pages(seqs: list[int], gone: set[int], dimension: int) -> None:
    body = vectors_of(seqs, dimension)
    left = [seq for seq in seqs if seq not in gone]
    found = without_pages(FrameKind.VECTORS, body, PageSet(gone))
    assert found == (vectors_of(left, dimension) if left or not seqs else None)
    assert (found is body) == (left == seqs)
    if found is not None:
        assert decode_vectors(found).seqs.tolist() == left
        assert decode_vectors(found).digests.tolist() == [seq + 7 for seq in left]


@given(pages, sets)
def test_words_without_pages(seqs: list[int], gone: set[int]) -> None:
    body = words_of(seqs)
    left = [seq for seq in seqs if seq not in gone]
    found = without_pages(FrameKind.WORDS, body, PageSet(gone))
    assert found == (words_of(left) if left or not seqs else None)
    assert (found is body) == (left == seqs)
    if found is not None:
        analyser, frame = decode_words(found)
        assert (analyser, frame.seqs.tolist()) == (5, left)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_more_columns_of_words_are_carried(kind: type[np.generic]) -> None:
    seqs = [1, 2, 3]
    body = encode([*decode(words_of(seqs)), np.array(seqs).astype(kind).tobytes()])
    found = without_pages(FrameKind.WORDS, body, PageSet([2]))
    assert found == encode([*decode(words_of([1, 3])), np.array([1, 3]).astype(kind).tobytes()])


def test_aside_without_its_page() -> None:
    body = encode_aside(3, "why")
    assert without_pages(FrameKind.ASIDE, body, PageSet([2, 4])) is body
    assert without_pages(FrameKind.ASIDE, body, PageSet([2, 3, 4])) is None


@pytest.mark.parametrize("kind", [FrameKind.VECTORS, FrameKind.WORDS, FrameKind.ASIDE])
@pytest.mark.parametrize("content", [{}, [1], 7, [bytes(8), 3, b"1234"], [5, bytes(8), b"", b"", b""]])
def test_something_else_is_told(kind: FrameKind, content: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        without_pages(kind, encode(content), PageSet([0]))


@given(sets, st.lists(st.integers(-5, 35)))
def test_sets_of_pages(seqs: set[int], asked: list[int]) -> None:
    found = PageSet(seqs)
    assert len(found) == len(seqs)
    assert found.among(column(asked)).tolist() == [seq in seqs for seq in asked]
    assert found.covers(asked) == (set(asked) <= seqs)
    assert found.within(0, 20) == sorted(seq for seq in seqs if 0 <= seq < 20)
