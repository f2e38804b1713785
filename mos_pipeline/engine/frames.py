"""Bodies of the frames that hold what was derived from single pages, by sequence number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.memory.words import analyser_id
from mos_pipeline.messages import decode, encode
from mos_pipeline.store.codec import pack_vectors, unpack_vectors

__all__ = [
    "VectorFrame",
    "WordFrame",
    "decode_aside",
    "decode_vectors",
    "decode_words",
    "encode_aside",
    "encode_vectors",
    "encode_words",
]


class VectorFrame(NamedTuple):
    """Vectors of pages of any scopes: seqs int64 (n,), vectors float16 (n, dimension), L2-normalised."""

    seqs: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]


class WordFrame(NamedTuple):
    """Words of pages of any scopes, those of one scope ascending.

    Attributes:
        seqs: int64 (n,).
        sizes: distinct words of each page, uint32 (n,).
        hashes: uint32 (sum of sizes,): word hashes, page after page.
        counts: uint8 (sum of sizes,).
        sittings: the number of each page's sitting in its scope, uint32 (n,).
    """

    seqs: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.uint32]
    hashes: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint8]
    sittings: npt.NDArray[np.uint32]


def encode_vectors(seqs: npt.NDArray[np.int64], vectors: npt.NDArray[np.float16]) -> bytes:
    """Return the frame body for pages ``seqs`` (n,) with their vectors (n, d)."""
    return encode([seqs.astype("<i8").tobytes(), vectors.shape[1], pack_vectors(vectors)])


def decode_vectors(body: bytes) -> VectorFrame:
    """Return what ``encode_vectors`` was given."""
    seqs, dimension, vectors = decode(body)
    return VectorFrame(np.frombuffer(seqs, "<i8"), unpack_vectors(vectors, dimension))


def encode_words(frame: WordFrame) -> bytes:
    """Return the frame body for words, marked with the analyser that found them."""
    seqs, sizes, hashes, counts, sittings = frame
    columns = (seqs.astype("<i8"), sizes.astype("<u4"), hashes.astype("<u4"), counts, sittings.astype("<u4"))
    return encode([analyser_id(), *(column.tobytes() for column in columns)])


def decode_words(body: bytes) -> WordFrame | None:
    """Return what ``encode_words`` was given.

    None where another analyser (another stemmer's version) found them, or where they tell no sittings, as in the first
    form of this frame, which also lacks the words of names and dates: such words are found again from the texts.
    """
    analyser, seqs, sizes, hashes, counts, *sittings = decode(body)
    if len(sittings) > 1:
        raise ValueError(f"{len(sittings) - 1} columns too many")
    frame = WordFrame(
        np.frombuffer(seqs, "<i8"),
        np.frombuffer(sizes, "<u4"),
        np.frombuffer(hashes, "<u4"),
        np.frombuffer(counts, np.uint8),
        np.frombuffer(sittings[0] if sittings else b"", "<u4"),
    )
    return frame if sittings and analyser == analyser_id() else None


def encode_aside(seq: int, reason: str) -> bytes:
    """Return the frame body that says why a page was set aside."""
    return encode([seq, reason])


def decode_aside(body: bytes) -> tuple[int, str]:
    """Return what ``encode_aside`` was given."""
    seq, reason = decode(body)
    return seq, reason
