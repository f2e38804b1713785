"""Bodies of the frames that hold derived data: what can be made again from the pages, by sequence number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.memory.state import BatchOutcome, Placed
from mos_pipeline.memory.words import analyser_id
from mos_pipeline.messages import decode, encode
from mos_pipeline.store import derived
from mos_pipeline.store.codec import pack_vectors, unpack_vectors
from mos_pipeline.store.derived import (
    VectorFrame,
    WordFrame,
    decode_aside,
    decode_vectors,
    encode_aside,
    encode_vectors,
)

__all__ = [
    "BatchFrame",
    "VectorFrame",
    "WordFrame",
    "decode_aside",
    "decode_batches",
    "decode_vectors",
    "decode_words",
    "encode_aside",
    "encode_batches",
    "encode_vectors",
    "encode_words",
]


def encode_words(frame: WordFrame) -> bytes:
    """Return the frame body for words, marked with the analyser that found them."""
    return derived.encode_words(analyser_id(), frame)


def decode_words(body: bytes) -> WordFrame | None:
    """Return what ``encode_words`` was given; None where another analyser (another stemmer's version) found them."""
    analyser, frame = derived.decode_words(body)
    return frame if analyser == analyser_id() else None


class BatchFrame(NamedTuple):
    """An applied batch as it is stored; a frame holds some, of any scopes, in the order in which they were applied.

    Attributes:
        seqs: all its pages, those set aside included.
        vectors: float16 (f, dimension): summary embeddings of the sessions it founded, in the order of ``placed``.
    """

    user_id: str
    assistant_id: str
    seqs: Sequence[int]
    outcome: BatchOutcome
    vectors: npt.NDArray[np.float16]


def encode_batches(batches: Sequence[BatchFrame]) -> bytes:
    """Return the frame body of batches; their rows in this process's pool are left out."""
    packed = [_packed(batch) for batch in batches]
    vectors = np.concatenate([batch.vectors for batch in batches])
    return encode([packed, vectors.shape[1], pack_vectors(vectors)])


def _packed(batch: BatchFrame) -> list[Any]:
    live, links, overviews, placed = batch.outcome
    return [batch.user_id, batch.assistant_id, batch.seqs, live, links, overviews, [p._replace(row=-1) for p in placed]]


def decode_batches(body: bytes) -> list[BatchFrame]:
    """Return what ``encode_batches`` was given."""
    packed, dimension, vectors = decode(body)
    rows = unpack_vectors(vectors, dimension)
    batches, first = list[BatchFrame](), 0
    for user_id, assistant_id, seqs, live, links, overviews, placed in packed:
        outcome = BatchOutcome(live, links, overviews, [Placed._make(p) for p in placed])
        last = first + sum(p.founded for p in outcome.placed)
        batches.append(BatchFrame(user_id, assistant_id, seqs, outcome, rows[first:last]))
        first = last
    return batches
