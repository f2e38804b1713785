"""What is known of accepted pages by name: their ids, and the records of files that they came from."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mos_pipeline.errors import InputError
from mos_pipeline.memory.page_ids import PageIds
from mos_pipeline.messages import SourceMark
from mos_pipeline.store.heads import PageHeads

__all__ = ["Register"]

logger = logging.getLogger(__name__)


class Register:
    """Enters pages in the order of their numbers. Not for several threads at once: its owner holds a lock.

    Attributes:
        next_seq: how many pages were accepted in the store's life.
    """

    __slots__ = ("_ids", "_sources", "next_seq")

    def __init__(self, ids: PageIds) -> None:
        self._ids = ids
        self._sources: dict[bytes, int] = {}
        self.next_seq = 0

    def enter(self, page_id: str | None, source: SourceMark | None) -> None:
        """Enter the next page, whose id (None: an automatic one) means no other page."""
        seq = self.next_seq
        self._ids.register(page_id, seq)
        self.next_seq = seq + 1
        if source is not None:
            self._sources[source.digest] = source.ordinal + 1

    def passed(self, source: SourceMark) -> bool:
        """Return whether the record that a page came from, or one behind it in its source, was accepted already."""
        return source.ordinal < self._sources.get(source.digest, 0)

    def restore(self, heads: PageHeads, pages: int, is_gone: Callable[[int], bool]) -> None:
        """Enter the next ``pages`` pages, as they are stored.

        ``is_gone(seq)`` tells whether a page was forgotten, so that its id may be that of a later one.
        """
        first, last = self.next_seq, self.next_seq + pages - 1
        for place, page_id in heads.page_ids:
            holder = self._ids.resolve(page_id)
            if holder is not None and is_gone(holder):
                self._ids.release(page_id)
            self._register(page_id, first + place)
        if not heads.page_ids or heads.page_ids[-1][0] < pages - 1:
            self._ids.register(None, last)
        self.next_seq = last + 1
        for digest, ordinal in heads.sources.items():
            self._sources[digest] = max(self._sources.get(digest, 0), ordinal + 1)

    def _register(self, page_id: str, seq: int) -> None:
        try:
            self._ids.register(page_id, seq)
        except InputError as error:
            # An earlier page with this id was damaged when this one was accepted, and was mended since.
            logger.warning("two pages have one id, which stands for the earlier from now on: %s", error)
            self._ids.register(None, seq)

    def skip(self) -> None:
        """Leave the next number empty: its page can't be read any more, or it stands for no page at all."""
        self._ids.lose(self.next_seq)
        self.next_seq += 1

    def sources(self) -> dict[bytes, int]:
        """Return, for every file that pages came from, its digest and the ordinal of the next record to accept."""
        return dict(self._sources)
