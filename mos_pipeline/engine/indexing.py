"""Keeping the word indexes up with the accepted pages, in small steps."""

from __future__ import annotations

from collections import deque

import numpy as np

from mos_pipeline.engine.frames import VectorFrame, WordCounts
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.words import analyse
from mos_pipeline.messages import decode_record
from mos_pipeline.store.reading import PageReader

__all__ = ["Indexing"]

# A page is indexed when it comes and its words are stored with its vector; most are embedded soon after.
REMEMBERED_PAGES = 4096


class Indexing:
    """Words of pages: who still has to be indexed, and what was found. Owned by the coordinator."""

    def __init__(self, state: MemoryState, reader: PageReader) -> None:
        self._state = state
        self._reader = reader
        self._behind: deque[Scope] = deque()
        self._queued: set[int] = set()
        self._recent: dict[int, WordCounts] = {}

    def page_came(self, scope: Scope) -> None:
        """Note that ``scope`` has pages to index."""
        if scope.number not in self._queued:
            self._queued.add(scope.number)
            self._behind.append(scope)

    def step(self, pages: int) -> bool:
        """Index up to ``pages`` pages of one scope; return whether any scope is still behind."""
        if self._behind:
            scope = self._behind.popleft()
            self._queued.discard(scope.number)
            if self.catch_up(scope, pages):
                self.page_came(scope)
        return bool(self._behind)

    def catch_up(self, scope: Scope, pages: int | None = None) -> bool:
        """Index up to ``pages`` pages of ``scope`` (None: all); return whether it is still behind."""
        seqs = self._state.pages.seqs_of(scope.number)
        stop = len(seqs) if pages is None else min(len(seqs), scope.indexed + pages)
        for seq in map(int, seqs[scope.indexed : stop]):
            hashes, counts = self.words_of(seq)
            scope.words.add(seq, hashes, counts)
        scope.indexed = stop
        return stop < len(seqs)

    def restore(self, scope: Scope, frames: list[VectorFrame]) -> None:
        """Enter stored words, as far as they go without a gap; what is missing is read from the texts later."""
        sizes = np.concatenate([frame.sizes for frame in frames]).astype(np.int64)
        ends = np.cumsum(sizes)
        seqs = np.concatenate([frame.seqs for frame in frames])
        hashes = np.concatenate([frame.hashes for frame in frames])
        counts = np.concatenate([frame.counts for frame in frames])
        order = np.argsort(seqs, kind="stable")
        if (order[1:] < order[:-1]).any():  # frames were written out of order: bring their words into the pages' order
            starts = ends - sizes
            places = np.concatenate([np.arange(starts[i], ends[i]) for i in order])
            seqs, sizes, hashes, counts = seqs[order], sizes[order], hashes[places], counts[places]
            ends = np.cumsum(sizes)
        expected = np.asarray(self._state.pages.seqs_of(scope.number)[: len(seqs)])
        wrong = np.flatnonzero(expected != seqs[: len(expected)])
        whole = int(wrong[0]) if len(wrong) else len(expected)
        stop = int(ends[whole - 1]) if whole else 0
        scope.words.add_many(seqs[:whole], sizes[:whole], hashes[:stop], counts[:stop])
        scope.indexed = whole

    def words_of(self, seq: int) -> WordCounts:
        """Return the words of a page: hashes uint32 (n,), counts uint8 (n,)."""
        found = self._recent.get(seq)
        if found is None:
            record = decode_record(self._reader.read(seq))
            found = analyse(f"{record.user_input} {record.agent_response}")
            self._recent[seq] = found
            if len(self._recent) > REMEMBERED_PAGES:
                del self._recent[next(iter(self._recent))]
        return found
