"""Bodies of the frames that hold derived data: what can be made again from the pages, by sequence number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.memory.state import BatchOutcome, Placed, Scope
from mos_pipeline.memory.words import analyser_id
from mos_pipeline.messages import decode, encode
from mos_pipeline.store.codec import FrameKind, pack_vectors, unpack_vectors

__all__ = [
    "BatchFrame",
    "VectorFrame",
    "WordFrame",
    "decode_aside",
    "decode_batch",
    "decode_vectors",
    "decode_words",
    "encode_aside",
    "encode_batch",
    "encode_vectors",
    "encode_words",
    "highest_page",
]


class VectorFrame(NamedTuple):
    """Vectors of pages of one scope: seqs int64 (n,), vectors float16 (n, dimension), L2-normalised."""

    seqs: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]


class WordFrame(NamedTuple):
    """Words of pages of any scopes, those of one scope ascending.

    Attributes:
        seqs: int64 (n,).
        sizes: distinct words of each page, uint32 (n,).
        hashes: uint32 (sum of sizes,): word hashes, page after page.
        counts: uint8 (sum of sizes,).
    """

    seqs: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.uint32]
    hashes: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint8]


def encode_vectors(seqs: npt.NDArray[np.int64], vectors: npt.NDArray[np.float16]) -> bytes:
    """Return the frame body for pages ``seqs`` (n,) with their vectors (n, d)."""
    return encode([seqs.astype("<i8").tobytes(), vectors.shape[1], pack_vectors(vectors)])


def decode_vectors(body: bytes) -> VectorFrame:
    """Return what ``encode_vectors`` was given."""
    seqs, dimension, vectors = decode(body)
    return VectorFrame(np.frombuffer(seqs, "<i8"), unpack_vectors(vectors, dimension))


def encode_words(frame: WordFrame) -> bytes:
    """Return the frame body for words, marked with the analyser that found them."""
    seqs, sizes, hashes, counts = frame
    columns = (seqs.astype("<i8"), sizes.astype("<u4"), hashes.astype("<u4"), counts)
    return encode([analyser_id(), *(column.tobytes() for column in columns)])


def decode_words(body: bytes) -> WordFrame | None:
    """Return what ``encode_words`` was given; None where another analyser (another stemmer's version) found them."""
    analyser, seqs, sizes, hashes, counts = decode(body)
    if analyser != analyser_id():
        return None
    return WordFrame(
        np.frombuffer(seqs, "<i8"),
        np.frombuffer(sizes, "<u4"),
        np.frombuffer(hashes, "<u4"),
        np.frombuffer(counts, np.uint8),
    )


class BatchFrame(NamedTuple):
    """A batch as it is stored.

    Attributes:
        seqs: all its pages, those set aside included.
        vectors: float16 (f, dimension): summary embeddings of the sessions it founded, in the order of ``placed``.
    """

    user_id: str
    assistant_id: str
    seqs: list[int]
    outcome: BatchOutcome
    vectors: npt.NDArray[np.float16]


def encode_batch(scope: Scope, seqs: tuple[int, ...], outcome: BatchOutcome, vectors: npt.NDArray[np.float16]) -> bytes:
    """Return the frame body of an applied batch; ``vectors`` (f, d) of the sessions it founded."""
    placed = [list(p._replace(row=-1)) for p in outcome.placed]
    body = [outcome.seqs, outcome.links, outcome.overviews, placed]
    return encode([scope.user_id, scope.assistant_id, seqs, body, vectors.shape[1], pack_vectors(vectors)])


def decode_batch(body: bytes) -> BatchFrame:
    """Return what ``encode_batch`` was given."""
    user_id, assistant_id, seqs, (live, links, overviews, placed), dimension, vectors = decode(body)
    outcome = BatchOutcome(live, links, overviews, [Placed(*p) for p in placed])
    return BatchFrame(user_id, assistant_id, seqs, outcome, unpack_vectors(vectors, dimension))


def encode_aside(seq: int, reason: str) -> bytes:
    """Return the frame body that says why a page was set aside."""
    return encode([seq, reason])


def decode_aside(body: bytes) -> tuple[int, str]:
    """Return what ``encode_aside`` was given."""
    seq, reason = decode(body)
    return seq, reason


def highest_page(kind: FrameKind, body: bytes) -> int:
    """Return the highest page number that a derived frame speaks of; -1 where it speaks of none."""
    match kind:
        case FrameKind.VECTORS:
            return int(np.frombuffer(decode(body)[0], "<i8").max(initial=-1))  # without unpacking the vectors
        case FrameKind.WORDS:
            words = decode_words(body)
            return -1 if words is None else int(words.seqs.max(initial=-1))
        case FrameKind.BATCH:
            return max(decode_batch(body).seqs, default=-1)
        case FrameKind.ASIDE:
            return decode_aside(body)[0]
    return -1
