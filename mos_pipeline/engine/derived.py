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
from mos_pipeline.engine.events import Event, encode_events
from mos_pipeline.engine.frames import encode_words
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.store.codec import NO_PAGE, FrameKind
from mos_pipeline.store.derived import VectorFrame, WordFrame, encode_aside, encode_vectors

__all__ = ["Derived"]

SMALL = 4  # words and events take little room: so many times a frame's pages make one


class Derived:
    """Vectors, words and events of any scopes that wait for their frame to fill, for ``flush_interval_s`` at most.

    Attributes:
        dimension: of the vectors, 0 while it is not known.
    """

    def __init__(self, persistence: Persistence, config: Store) -> None:
        self._persistence = persistence
        self._frame_pages = config.frame_pages
        self._interval = config.flush_interval_s
        self._since: float | None = None
        self._vectors = list[VectorFrame]()
        self._held = list[VectorFrame]()
        self._events = list[Event]()
        self._event_pages = 0
        self._words: tuple[array[Any], ...] = (array("q"), array("I"), array("I"), array("B"), array("I"))
        self.dimension = 0

    @property
    def empty(self) -> bool:
        """Whether everything was given to the writer."""
        return self._since is None

    def due(self) -> float | None:
        """Return when (monotonic seconds) what waits must be given to the writer; None where nothing waits."""
        return None if self._since is None else self._since + self._interval

    def vectors(self, vectors: VectorFrame) -> None:
        """Take vectors of pages."""
        self._vectors.append(vectors)
        self._came()
        if sum(len(part.seqs) for part in self._vectors) >= self._frame_pages:
            self._flush_vectors()

    def event_before_vectors(self, event: Event, vectors: VectorFrame) -> None:
        """Take an event, and vectors of pages, which are written after it: a page with one has had its event.

        What is lost with a killed process is then embedded once more, and the event comes again.
        """
        self._held.append(vectors)
        self.event(event)

    def event(self, event: Event) -> None:
        """Take what has happened to a scope's memory."""
        self._events.append(event)
        self._event_pages += event.pages
        self._came()
        if self._event_pages >= SMALL * self._frame_pages:
            self._flush_events()

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
        self._flush_events()
        self._flush_vectors()
        self._flush_words()
        self._since = None

    def _came(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def _flush_vectors(self) -> None:
        if self._vectors:
            frame = VectorFrame(*map(np.concatenate, zip(*self._vectors, strict=True)))
            self._vectors.clear()
            last_page = int(frame.seqs.max(initial=NO_PAGE))
            self._persistence.frame(FrameKind.VECTORS, encode_vectors(frame), last_page)

    def _flush_events(self) -> None:
        self._flush_vectors()  # first: a batch is of use only with its pages' vectors
        if self._events:
            events, self._events, self._event_pages = self._events, [], 0
            last_page = max(event.last_page for event in events)
            self._persistence.frame(FrameKind.EVENTS, encode_events(events, self.dimension), last_page)
        held, self._held = self._held, []
        for vectors in held:
            self.vectors(vectors)

    def _flush_words(self) -> None:
        if self._words[0]:
            frame = WordFrame(*(np.array(column) for column in self._words))
            for column in self._words:
                del column[:]
            self._persistence.frame(FrameKind.WORDS, encode_words(frame), int(frame.seqs.max()))
