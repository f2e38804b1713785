"""What tasks see of pages, kept from when these are read to be embedded until their tasks begin, soon after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mos_pipeline.messages import PageRecord, decode_record, own_words
from mos_pipeline.store.reading import PageReader

__all__ = ["TaskPages", "task_page"]

SHORT_CHARS = 4096
MOST_KEPT = 512  # short pages


class TaskPages:
    """Reads pages for tasks; those that were read last are not read again. Owned by the coordinator."""

    def __init__(self, reader: PageReader) -> None:
        self._reader = reader
        self._kept: dict[int, list[str]] = {}

    def remember(self, seq: int, page: PageRecord) -> None:
        """Keep what tasks will see of a page, given by its own words, unless it is long."""
        if len(page.user_input) + len(page.agent_response) <= SHORT_CHARS:
            self._kept[seq] = list(page[2:5])
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]

    def take(self, seqs: Sequence[int]) -> list[list[str]]:
        """Return what tasks see of pages, and keep that no longer."""
        kept = [self._kept.pop(seq, None) for seq in seqs]
        missing = [seq for seq, page in zip(seqs, kept, strict=True) if page is None]
        read = map(task_page, self._reader.read_many(missing)) if missing else iter(())
        return [next(read) if page is None else page for page in kept]

    def forget(self, seqs: Iterable[int]) -> None:
        """Keep nothing of these pages."""
        for seq in seqs:
            self._kept.pop(seq, None)


def task_page(record: bytes) -> list[str]:
    """Return what a task sees of a page: either side, and its timestamp."""
    return list(own_words(decode_record(record))[2:5])
