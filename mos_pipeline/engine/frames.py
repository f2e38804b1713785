"""Words of pages as they are stored: marked with the analyser that found them, since others would find other words."""

from __future__ import annotations

from mos_pipeline.memory.words import analyser_id
from mos_pipeline.store import derived
from mos_pipeline.store.derived import WordFrame

__all__ = ["decode_words", "encode_words"]


def encode_words(frame: WordFrame) -> bytes:
    """Return the frame body for words."""
    return derived.encode_words(analyser_id(), frame)


def decode_words(body: bytes) -> WordFrame | None:
    """Return what ``encode_words`` was given.

    None where another analyser (another stemmer's version) found them, or where they tell no sittings, as in the first
    form of this frame, which also lacks the words of names and dates: such words are found again from the texts.
    """
    analyser, frame = derived.decode_words(body)
    return frame if analyser == analyser_id() and len(frame.sittings) == len(frame.seqs) else None
