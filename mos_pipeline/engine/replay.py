"""Entering a store's derived data: vectors, words and events, after the pages and while pages are accepted already."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.aside import LIFTED
from mos_pipeline.engine.checkpoints import decode_checkpoints
from mos_pipeline.engine.events import Event, decode_batches, decode_events
from mos_pipeline.engine.indexing import Indexing
from mos_pipeline.engine.retelling import Retelling
from mos_pipeline.errors import StoreDamagedError
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.derived import VectorFrame, decode_aside, decode_vectors
from mos_pipeline.store.recovery import StoredFrame
from mos_pipeline.store.segments import SegmentReader

__all__ = ["Replay"]

logger = logging.getLogger(__name__)

# Frames entered together, so that each scope's part of them is entered at once; some milliseconds.
WORDS_AT_ONCE = 16
VECTORS_AT_ONCE = 16


class Replay:
    """Enters derived frames into memory. Owned by the coordinator.

    Attributes:
        retelling: what enters the events; None without a pool.
        without_vector: by scope number, pages whose batch was applied and whose vectors were lost with a damaged frame,
            and those that are stale.
        stale: for each page, bool (n,), whether frames have a vector of it by another model than the store's.
        untold: what was forgotten and is not told by any frame.
        backlog: bytes of pages that have no vector, and should.
        digests: of the newest pages with a vector, oldest first: their numbers, int64 (n,), and the digests of the
            texts that were embedded, uint64 (n,).
    """

    def __init__(
        self,
        state: MemoryState,
        indexing: Indexing,
        segments: SegmentReader,
        pages: int,
        pool: VectorPool | None,
        generation: int,
        known_texts: int = 0,
    ) -> None:
        """Enter what belongs to the first ``pages`` pages; without a ``pool``, no vectors and no events.

        Vectors are of use in frames of this ``generation``; digests are kept of some ``known_texts`` pages.
        """
        self._known_texts = known_texts
        self._state = state
        self._indexing = indexing
        self._segments = segments
        self._pages = pages
        self._pool = pool
        self._generation = generation
        self.stale = np.zeros(pages, bool)
        self.retelling = Retelling(state, pages, pool) if pool is not None else None
        self._words = list[bytes]()
        self._vectors = list[VectorFrame]()
        self.without_vector: dict[int, list[int]] = {}
        self.backlog = 0
        self.untold = list[Event]()
        self.digests: deque[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]] = deque()

    def run(self, frames: Sequence[StoredFrame], sizes: Sequence[int], pause: Callable[[], bool]) -> bool:
        """Enter all ``frames`` of a store, and find out where its work goes on; ``sizes`` are its pages' bytes.

        ``pause()`` is called after each; where it returns False, the rest is given up and False returned.
        """
        if not self.enter(frames, pause):
            return False
        if self.retelling is not None:
            self.untold = self.retelling.forget_the_rest()
        bytes_of = np.array(sizes, np.int64)
        for scope in self._state.scopes:
            self._set_cursors(scope, bytes_of)
            if not pause():
                return False
        return True

    def enter(self, frames: Iterable[StoredFrame], pause: Callable[[], bool]) -> bool:
        """Enter ``frames``, in the order of their writing; ``pause`` and what is returned are as in ``run``."""
        for frame in frames:
            try:
                self._take(*self._segments.read_frame(frame.address), foreign=frame.generation != self._generation)
            except StoreDamagedError as error:  # it was whole when the store was opened; what it held is made again
                logger.warning("%s", error)
            if not pause():
                return False
        self._enter_words()
        self._enter_vectors()
        return True

    def grow(self, pages: int) -> None:
        """Enter what belongs to the first ``pages`` pages from now on."""
        self._pages = pages
        self.stale = np.concatenate([self.stale, np.zeros(pages - len(self.stale), bool)])
        if self.retelling is not None:
            self.retelling.grow(pages)

    def _take(self, kind: FrameKind, body: bytes, *, foreign: bool) -> None:
        """Enter a frame; of a ``foreign`` one without its vectors, which another model made."""
        match kind:
            case FrameKind.ASIDE:
                self._set_aside(*decode_aside(body))
            case FrameKind.WORDS:
                self._words.append(body)
                if len(self._words) >= WORDS_AT_ONCE:
                    self._enter_words()
            case FrameKind.VECTORS if foreign:
                seqs = decode_vectors(body).seqs
                self.stale[seqs[(seqs >= 0) & (seqs < self._pages)]] = True
            case FrameKind.VECTORS if self._pool is not None:
                self._vectors.append(decode_vectors(body))
                if len(self._vectors) >= VECTORS_AT_ONCE:
                    self._enter_vectors()
            case FrameKind.BATCH if self.retelling is not None:
                self._tell(self.retelling, decode_batches(body), foreign=foreign)
            case FrameKind.EVENTS if self.retelling is not None:
                self._tell(self.retelling, decode_events(body), foreign=foreign)
            case FrameKind.STATE if self.retelling is not None:
                checkpoints = decode_checkpoints(body)
                self.retelling.checkpoints([one.without_vectors for one in checkpoints] if foreign else checkpoints)

    def _tell(self, retelling: Retelling, events: list[Event], *, foreign: bool) -> None:
        retelling.events([event.without_vectors for event in events] if foreign else events)

    def _kept(self, seq: int) -> bool:
        return 0 <= seq < self._pages and self._state.pages.is_kept(seq)

    def _set_aside(self, seq: int, reason: str) -> None:
        if not self._kept(seq):
            return
        aside = self._state.scopes[self._state.pages.scope(seq)].aside
        if reason != LIFTED:
            aside[seq] = reason
        elif aside.pop(seq, None) is not None and self.retelling is not None:
            self.retelling.batched[seq] = False  # its batch was applied without it, and is to be made again with it

    def _enter_words(self) -> None:
        if self._words:
            self._indexing.restore(self._words)
            self._words.clear()

    def _enter_vectors(self) -> None:
        frames, self._vectors = self._vectors, []
        if not frames or self._pool is None:
            return
        # A page may come twice, where the writer was killed before it acknowledged; or it has a vector already.
        seqs, first = np.unique(np.concatenate([frame.seqs for frame in frames]), return_index=True)
        wanted = np.array([self._kept(seq) and self._state.pages.row(seq) < 0 for seq in seqs.tolist()], bool)
        vectors = np.concatenate([frame.vectors for frame in frames])[first[wanted]]
        seqs = seqs[wanted]
        self._keep(seqs, np.concatenate([frame.digests for frame in frames])[first[wanted]])
        numbers = np.array([self._state.pages.scope(seq) for seq in seqs.tolist()], np.int64)
        for number in np.unique(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            rows = self._pool.allocate(self._state.scopes[number].page_rows, len(mine))
            self._pool.write(rows, vectors[mine])
            self._pool.commit(rows, seqs[mine], shown=True)
            for seq, row in zip(seqs[mine].tolist(), rows.tolist(), strict=True):
                self._state.pages.set_row(seq, row)

    def _keep(self, seqs: npt.NDArray[np.int64], digests: npt.NDArray[np.uint64]) -> None:
        """Keep digests, of the newest pages so many as are wanted."""
        self.digests.append((seqs, digests))
        while self.digests and sum(len(part) for part, _ in islice(self.digests, 1, None)) >= self._known_texts:
            self.digests.popleft()

    def _set_cursors(self, scope: Scope, sizes: npt.NDArray[np.int64]) -> None:
        """Set where the scope's batches go on, and note what lies before that and lost its batch or its vector."""
        seqs = self._state.pages.seqs_of(scope.number)
        seqs = seqs[seqs < self._pages]
        done = np.zeros(len(seqs), bool) if self.retelling is None else self.retelling.batched[seqs]
        scope.given = int(np.flatnonzero(done)[-1]) + 1 if done.any() else 0
        scope.gaps = seqs[: scope.given][~done[: scope.given]].tolist()
        bare = ~self._state.pages.embedded_of(seqs) & ~np.isin(seqs, list(scope.aside))
        stale = self.stale[seqs]
        self.backlog += int(sizes[seqs[bare & ~stale]].sum())
        if lost := seqs[bare & (done | stale)].tolist():
            self.without_vector[scope.number] = lost
