from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mos_pipeline.engine import frames
from mos_pipeline.engine.frames import decode_words, encode_words
from mos_pipeline.messages import decode, encode
from mos_pipeline.store.derived import (
    VectorFrame,
    WordFrame,
    decode_aside,
    decode_vectors,
    encode_aside,
    encode_vectors,
)

seqs = st.integers(0, (1 << 62) - 1)
texts = st.text(st.characters(codec=None, exclude_categories=[]), max_size=12)  # lone surrogates too
float16s = npst.from_dtype(np.dtype(np.float16))  # NaN and infinity too: a frame judges nothing


def vectors(rows: int, dimension: int = 3) -> st.SearchStrategy[Any]:
    return npst.arrays(np.float16, (rows, dimension), elements=float16s)


@given(st.data(), st.lists(seqs, max_size=6), st.integers(1, 5))
def test_vectors_come_back_as_they_were(data: st.DataObject, numbers: list[int], dimension: int) -> None:
    rows = data.draw(vectors(len(numbers), dimension))
    digests = data.draw(npst.arrays(np.uint64, len(numbers)))
    found = decode_vectors(encode_vectors(VectorFrame(np.array(numbers, np.int64), rows, digests)))
    assert found.seqs.tolist() == numbers
    assert found.seqs.dtype == np.int64
    assert found.vectors.shape == (len(numbers), dimension)
    assert found.vectors.dtype == np.float16
    assert found.vectors.tobytes() == rows.tobytes()
    assert found.digests.dtype == np.uint64
    assert found.digests.tolist() == digests.tolist()


@given(st.lists(st.tuples(seqs, st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.integers(1, 255))))))
@example([(0, [(1, 1)] * 70_000)])  # more distinct words in a page than 16 bits count
def test_words_come_back_as_they_were(pages: list[tuple[int, list[tuple[int, int]]]]) -> None:
    words = [word for _, page in pages for word in page]
    frame = WordFrame(
        np.array([seq for seq, _ in pages], np.int64),
        np.array([len(page) for _, page in pages], np.uint32),
        np.array([value for value, _ in words], np.uint32),
        np.array([count for _, count in words], np.uint8),
        np.array([number // 3 for number in range(len(pages))], np.uint32),
    )
    found = decode_words(encode_words(frame))
    assert found is not None
    for name in WordFrame._fields:
        was, column = getattr(frame, name), getattr(found, name)
        assert was.dtype == column.dtype
        assert was.tolist() == column.tolist()


@given(seqs, texts)
def test_a_page_set_aside_comes_back_with_its_reason(seq: int, reason: str) -> None:
    assert decode_aside(encode_aside(seq, reason)) == (seq, reason)


BODIES: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "vectors": (
        decode_vectors,
        encode_vectors(VectorFrame(np.arange(2), np.ones((2, 3), np.float16), np.ones(2, np.uint64))),
    ),
    "words": (
        decode_words,
        encode_words(WordFrame(*(np.ones(1, kind) for kind in (np.int64, "<u4", "<u4", "u1", "<u4")))),
    ),
    "aside": (decode_aside, encode_aside(7, "because")),
}


@pytest.mark.parametrize("kind", BODIES)
def test_what_is_not_a_whole_body_is_refused(kind: str) -> None:
    decode_body, body = BODIES[kind]
    decode_body(body)
    wrong = [body[:stop] for stop in range(len(body))]
    wrong += [body + b"\0", body[1:], encode(None), encode([]), encode([1] * 9), encode([None] * 6)]
    for data in wrong:
        with pytest.raises((ValueError, TypeError)):
            decode_body(data)


def test_words_of_another_analyser_are_not_mixed_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_body, body = BODIES["words"]
    monkeypatch.setattr(frames, "analyser_id", lambda: 1)
    assert decode_body(body) is None


def test_words_without_sittings_are_found_again() -> None:
    """The frame's first form ended with the counts."""
    decode_body, body = BODIES["words"]
    assert decode_body(encode(decode(body)[:-1])) is None


def test_vectors_without_digests_are_found_again() -> None:
    """The frame's first form ended with the vectors."""
    decode_body, body = BODIES["vectors"]
    found = decode_body(encode(decode(body)[:-1]))
    assert isinstance(found, VectorFrame)
    assert (found.seqs.tolist(), found.vectors.shape, found.digests.tolist()) == ([0, 1], (2, 3), [0, 0])


def test_digests_of_other_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="1 digests of 2 pages"):
        decode_vectors(encode([*decode(BODIES["vectors"][1])[:-1], b"\1" * 8]))


def test_vectors_that_are_no_whole_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        decode_vectors(encode([b"", 3, b"\0" * 8]))
