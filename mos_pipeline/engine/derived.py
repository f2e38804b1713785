"""Derived data on its way to the writer, gathered into frames: opening a store pays for each frame, however small.

Owned by the coordinator. What is lost here with a killed process is made again from the pages.
"""

from __future__ import annotations

import time
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Store
from mos_pipeline.engine.frames import BatchFrame, WordFrame, encode_aside, encode_batches, encode_vectors, encode_words
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.store.codec import FrameKind

__all__ = ["Derived"]

SMALL = 4  # words and batches take little room: so many times a frame's pages make one


class Derived:
    """Vectors, words and batches of any scopes that wait for their frame to fill, for ``flush_interval_s`` at most."""

    def __init__(self, persistence: Persistence, config: Store) -> None:
        self._persistence = persistence
        self._frame_pages = config.frame_pages
        self._interval = config.flush_interval_s
        self._since: float | None = None
        self._vector_seqs = list[npt.NDArray[np.int64]]()
        self._vectors = list[npt.NDArray[np.float16]]()
        self._batches = list[BatchFrame]()
        self._words: tuple[array[Any], ...] = (array("q"), array("I"), array("I"), array("B"), array("I"))

    @property
    def empty(self) -> bool:
        """Whether everything was given to the writer."""
        return self._since is None

    def due(self) -> float | None:
        """Return when (monotonic seconds) what waits must be given to the writer; None where nothing waits."""
        return None if self._since is None else self._since + self._interval

    def vectors(self, seqs: npt.NDArray[np.int64], vectors: npt.NDArray[np.float16]) -> None:
        """Take the vectors, float16 (n, d), of pages ``seqs``, int64 (n,)."""
        self._vector_seqs.append(seqs)
        self._vectors.append(vectors)
        self._came()
        if sum(map(len, self._vector_seqs)) >= self._frame_pages:
            self._flush_vectors()

    def batch(self, batch: BatchFrame) -> None:
        """Take an applied batch."""
        self._batches.append(batch)
        self._came()
        if sum(len(batch.seqs) for batch in self._batches) >= SMALL * self._frame_pages:
            self._flush_batches()

    def words(self, seq: int, hashes: npt.NDArray[np.uint32], counts: npt.NDArray[np.uint8], sitting: int) -> None:
        """Take the distinct words of page ``seq``, uint32 (n,), how often each comes, uint8 (n,), and its sitting."""
        seqs, sizes, all_hashes, all_counts, sittings = self._words
        seqs.append(seq)
        sizes.append(len(hashes))
        all_hashes.frombytes(hashes.tobytes())
        all_counts.frombytes(counts.tobytes())
        sittings.append(sitting)
        self._came()
        if len(seqs) >= SMALL * self._frame_pages:
            self._flush_words()

    def aside(self, seq: int, reason: str) -> None:
        """Give the writer why page ``seq`` was set aside, at once: finding it out again may kill workers again."""
        self._persistence.frame(FrameKind.ASIDE, encode_aside(seq, reason), seq)

    def flush(self) -> None:
        """Give the writer everything."""
        self._flush_batches()
        self._flush_words()
        self._since = None

    def _came(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def _flush_vectors(self) -> None:
        if self._vectors:
            seqs, vectors = np.concatenate(self._vector_seqs), np.concatenate(self._vectors)
            self._vector_seqs.clear()
            self._vectors.clear()
            self._persistence.frame(FrameKind.VECTORS, encode_vectors(seqs, vectors), int(seqs.max()))

    def _flush_batches(self) -> None:
        self._flush_vectors()  # first: a batch is of use only with its pages' vectors
        if self._batches:
            batches, self._batches = self._batches, []
            last_page = max(max(batch.seqs) for batch in batches)
            self._persistence.frame(FrameKind.BATCH, encode_batches(batches), last_page)

    def _flush_words(self) -> None:
        if self._words[0]:
            frame = WordFrame(*(np.array(column) for column in self._words))
            for column in self._words:
                del column[:]
            self._persistence.frame(FrameKind.WORDS, encode_words(frame), int(frame.seqs.max()))
