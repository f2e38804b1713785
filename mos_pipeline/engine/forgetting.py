"""Forgetting pages: out of the columns, the pool, the words, and whatever was derived from them.

Owned by the coordinator, which calls it in the order of acceptance: what was accepted before a tombstone is known by
then. Sessions, overviews, facts and the profile that tell of a page go with it; the pages that are left of them are
worked on again, so that these are made anew without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.events import Event, Forgotten
from mos_pipeline.engine.indexing import Indexing
from mos_pipeline.engine.processing import Processing
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.engine.repaying import Repaying
from mos_pipeline.memory.dead import DeadPages
from mos_pipeline.memory.state import MemoryState, Scope

__all__ = ["Forgetting"]


class Forgetting:
    """Takes pages out of memory; ``dead`` knows those whose bytes are still on the disk."""

    def __init__(
        self,
        state: MemoryState,
        indexing: Indexing,
        processing: Processing,
        promotion: Promotion,
        repaying: Repaying,
        derived: Derived,
        embedding: Embedding,
    ) -> None:
        self._state = state
        self._indexing = indexing
        self._processing = processing
        self._promotion = promotion
        self._repaying = repaying
        self._derived = derived
        self._embedding = embedding
        self.dead = DeadPages()

    def forget(self, seqs: Iterable[int]) -> None:
        """Forget pages, of any scopes; those that belong to nobody any more are passed over."""
        by_scope: dict[int, list[int]] = {}
        for seq in seqs:
            if self._state.pages.is_kept(seq):
                by_scope.setdefault(self._state.pages.scope(seq), []).append(seq)
        for number, mine in by_scope.items():
            self._forget_of(self._state.scopes[number], mine)
            self.dead.add(mine)

    def _forget_of(self, scope: Scope, seqs: Sequence[int]) -> None:
        gone, pages = set(seqs), self._state.pages
        self._repaying.forget(scope)
        self._processing.forget(scope, gone)  # first: it asks which of them have a vector
        self._promotion.forget(scope, gone)  # and it, what memory was made from
        self._indexing.forget(scope, seqs)
        rows = [row for seq in seqs if (row := pages.row(seq)) >= 0]
        scope.given -= int((np.searchsorted(pages.seqs_of(scope.number), seqs) < scope.given).sum())
        pages.forget(seqs)
        for seq in seqs:
            scope.aside.pop(seq, None)
        forgotten = self._state.forget(scope, gone)
        rows += forgotten.rows
        given = set(pages.seqs_of(scope.number)[: scope.given].tolist()) - self._processing.in_batches(scope)
        scope.gaps = sorted(given & {*scope.gaps, *forgotten.redo})
        if self._embedding.has_pool:
            self._embedding.pool.release(rows)
        self._derived.event(Event(scope.user_id, scope.assistant_id, Forgotten(seqs)))
        self._processing.look_again(scope)
        self._promotion.go_on(scope)
