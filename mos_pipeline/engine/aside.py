"""Pages that no worker can work on: set aside, kept, and found by their words. Owned by the coordinator."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mos_pipeline.engine.derived import Derived
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode_record
from mos_pipeline.store.reading import PageReader

__all__ = ["LIFTED", "Aside"]

logger = logging.getLogger(__name__)

LIFTED = ""  # the reason of a page that is to be worked on again


class Aside:
    """Sets pages aside, and tells which pages need no embedding any more."""

    def __init__(self, state: MemoryState, reader: PageReader, derived: Derived) -> None:
        self._state = state
        self._reader = reader
        self._derived = derived

    def put(self, scope: Scope, seq: int, reason: str) -> None:
        """Set page ``seq`` of ``scope`` aside."""
        page_id = self._state.ids.id_of(seq, decode_record(self._reader.read(seq)).page_id)
        text = "page %s is set aside, kept and found by its words: %s"
        logger.error(text, page_id, reason, extra={"event": "page-set-aside"})
        scope.aside[seq] = reason
        self._derived.aside(seq, reason)

    def lift(self, scope: Scope, seqs: Iterable[int]) -> None:
        """Let pages ``seqs`` of ``scope`` be worked on again."""
        self._derived.flush()  # the batches that were applied without them come before
        for seq in seqs:
            del scope.aside[seq]
            self._derived.aside(seq, LIFTED)

    def settled(self, scope: Scope, seq: int) -> bool:
        """Return whether page ``seq`` of ``scope`` has a vector, or was set aside."""
        return self._state.pages.row(seq) >= 0 or seq in scope.aside
