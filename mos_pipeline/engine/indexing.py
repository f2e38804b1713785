"""Keeping the word indexes up with the accepted pages, in small steps."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Retrieval
from mos_pipeline.engine.frames import decode_words
from mos_pipeline.memory.pages import FORGOTTEN
from mos_pipeline.memory.sittings import Sitting, next_sitting
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.words import analyse_page
from mos_pipeline.messages import PageRecord, decode_record, own_words
from mos_pipeline.store.derived import WordFrame
from mos_pipeline.store.reading import PageReader

__all__ = ["Indexing", "WordSink"]

READ_AT_ONCE = 4  # pages: long ones may be too many for the time that there is, and are read again then


class WordSink(Protocol):
    """Takes the words that were found, to be stored."""

    def words(self, seq: int, hashes: npt.NDArray[np.uint32], counts: npt.NDArray[np.uint8], sitting: int) -> None:
        """Take a page's words, (n,), how often each comes, (n,), and the page's sitting."""


class Indexing:
    """Words and sittings of pages: who still has to be indexed. Owned by the coordinator."""

    def __init__(self, state: MemoryState, reader: PageReader, sink: WordSink, config: Retrieval) -> None:
        self._state = state
        self._reader = reader
        self._sink = sink
        self._config = config
        self._sittings: dict[int, Sitting] = {}  # of each scope's last indexed page, once it was needed
        self._behind: deque[Scope] = deque()
        self._queued: set[int] = set()

    @property
    def behind(self) -> bool:
        """Whether any scope has pages to index."""
        return bool(self._behind)

    def page_came(self, scope: Scope) -> None:
        """Note that ``scope`` has pages to index."""
        if scope.number not in self._queued:
            self._queued.add(scope.number)
            self._behind.append(scope)

    def step(self, pages: int, until: float) -> bool:
        """Index up to ``pages`` pages of one scope; return whether any scope is still behind.

        One page in any case, and further ones while ``time.perf_counter()`` is below ``until``.
        """
        if self._behind:
            scope = self._behind.popleft()
            self._queued.discard(scope.number)
            if self.catch_up(scope, pages, until):
                self.page_came(scope)
        return bool(self._behind)

    def catch_up(self, scope: Scope, pages: int | None = None, until: float = math.inf) -> bool:
        """Index up to ``pages`` pages of ``scope`` (None: all), as ``step``; return whether it is still behind."""
        seqs = self._state.pages.seqs_of(scope.number)
        stop = len(seqs) if pages is None else min(len(seqs), scope.indexed + pages)
        while scope.indexed < stop:
            due = seqs[scope.indexed : min(stop, scope.indexed + READ_AT_ONCE)].tolist()
            for seq, stored in zip(due, self._reader.read_many(due), strict=True):
                self._index(scope, seq, own_words(decode_record(stored)))
                if time.perf_counter() >= until:
                    return scope.indexed < len(seqs)
        return stop < len(seqs)

    def _index(self, scope: Scope, seq: int, page: PageRecord) -> None:
        hashes, counts = analyse_page(page)
        sitting = self._sitting(scope, page)
        scope.words.add(seq, hashes, counts, sitting)
        self._sink.words(seq, hashes, counts, sitting)
        scope.indexed += 1

    def forget(self, scope: Scope, seqs: Sequence[int]) -> None:
        """Take pages out of the words; for as long as they are still among the scope's pages."""
        known = self._state.pages.seqs_of(scope.number)[: scope.indexed]
        scope.indexed -= int(np.isin(known, seqs).sum())
        scope.words.remove(seqs)

    def _sitting(self, scope: Scope, page: PageRecord) -> int:
        """Return the sitting of the scope's next page."""
        before = self._sittings.get(scope.number) or self._last_sitting(scope)
        sitting = self._next_sitting(before, page)
        self._sittings[scope.number] = sitting
        return sitting.number

    def _last_sitting(self, scope: Scope) -> Sitting | None:
        """Return the sitting of the last indexed page, whose number was stored; the rest is read from its record."""
        if not scope.indexed:
            return None
        seq = int(self._state.pages.seqs_of(scope.number)[scope.indexed - 1])
        told = self._next_sitting(None, decode_record(self._reader.read_many([seq])[0]))
        return told._replace(number=scope.words.last_sitting)

    def _next_sitting(self, before: Sitting | None, page: PageRecord) -> Sitting:
        config = self._config
        return next_sitting(
            before, page.timestamp, page.metadata, key=config.sitting_key, gap_hours=config.sitting_gap_hours
        )

    def restore(self, bodies: list[bytes]) -> None:
        """Enter stored words, of each scope as far as they go without a gap; the rest is read from the texts later."""
        frames = [frame for body in bodies if (frame := decode_words(body)) is not None]
        if not frames:
            return
        merged = WordFrame(*(np.concatenate(columns) for columns in zip(*frames, strict=True)))
        for scope, words in self._by_scope(merged):
            expected = self._state.pages.seqs_of(scope.number)[scope.indexed : scope.indexed + len(words.seqs)]
            wrong = np.flatnonzero(expected != words.seqs[: len(expected)])
            whole = int(wrong[0]) if len(wrong) else len(expected)
            stop = int(words.sizes[:whole].sum())
            scope.words.add_many(
                words.seqs[:whole],
                words.sizes[:whole],
                words.hashes[:stop],
                words.counts[:stop],
                # Numbered by other settings, part of them again after damage, they might descend.
                np.maximum.accumulate(np.maximum(words.sittings[:whole], max(scope.words.last_sitting, 0))),
            )
            self._sittings.pop(scope.number, None)
            scope.indexed += whole

    def _by_scope(self, frame: WordFrame) -> Iterator[tuple[Scope, WordFrame]]:
        """Split a frame by scope, each one's pages ascending and once (a frame may have been written twice)."""
        ends = np.cumsum(frame.sizes, dtype=np.int64)
        starts = ends - frame.sizes
        _, once = np.unique(frame.seqs, return_index=True)
        numbers = np.array([self._state.pages.scope(seq) for seq in frame.seqs[once].tolist()], np.int64)
        order = once[np.argsort(numbers, kind="stable")]
        numbers = np.sort(numbers)
        for number in np.unique(numbers).tolist():
            if number >= FORGOTTEN:
                continue
            mine = order[np.searchsorted(numbers, number) : np.searchsorted(numbers, number, "right")]
            scope = self._state.scopes[number]
            known = self._state.pages.seqs_of(number)[: scope.indexed]
            if len(known):
                mine = mine[frame.seqs[mine] > known[-1]]
            sizes = frame.sizes[mine].astype(np.int64)
            places = np.repeat(starts[mine] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
            yield (
                scope,
                WordFrame(
                    frame.seqs[mine],
                    frame.sizes[mine],
                    frame.hashes[places],
                    frame.counts[places],
                    frame.sittings[mine],
                ),
            )
