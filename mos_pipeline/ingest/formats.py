"""The formats: how each is laid out, and what makes pages of its objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.chatgpt import pages_of_chatgpt
from mos_pipeline.ingest.claude import pages_of_claude
from mos_pipeline.ingest.detect import detect, first_bytes, is_lines
from mos_pipeline.ingest.elements import read_elements
from mos_pipeline.ingest.jsonl import page_of_line
from mos_pipeline.ingest.lines import Item, Pages, read_lines
from mos_pipeline.ingest.locomo import pages_of_locomo
from mos_pipeline.ingest.mem0 import page_of_memory
from mos_pipeline.ingest.messages import pages_of_messages
from mos_pipeline.ingest.quarantine import quarantined_pages
from mos_pipeline.ingest.records import Reading
from mos_pipeline.ingest.streams import Stream

__all__ = ["FORMATS", "SourceFile"]

_PAGES: dict[str, Pages] = {
    "jsonl": page_of_line,
    "messages": pages_of_messages,
    "chatgpt": pages_of_chatgpt,
    "claude": pages_of_claude,
    "locomo": pages_of_locomo,
    "mem0": page_of_memory,
}
_OF_QUARANTINE = quarantined_pages(dict(_PAGES))
# A line of a quarantine that can't be taken is itself left out into another one; there it is mended, too.
_PAGES["quarantine"] = quarantined_pages({**_PAGES, "quarantine": _OF_QUARANTINE})
FORMATS = ("auto", *_PAGES)
_ONLY_LINES = {"jsonl", "quarantine"}


class SourceFile(NamedTuple):
    """A source with its format.

    Attributes:
        lines: whether an object stands on every line.
        prefix: else: where ijson finds its elements.
    """

    stream: Stream
    format: str
    lines: bool
    prefix: str

    @classmethod
    def of(cls, stream: Stream, format: str = "auto") -> SourceFile:  # noqa: A002
        """Look at a source's beginning.

        Raises:
            InputError: the format is unknown, can't be told, or the beginning does not look like it.
        """
        if format not in FORMATS:
            raise InputError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
        head = first_bytes(stream)
        name = detect(stream) if format == "auto" else format
        if name in _ONLY_LINES or (name == "messages" and (not head or is_lines(head))):
            return cls(stream, name, True, "")
        if head.startswith(b"["):
            return cls(stream, name, False, "item")
        if not head.startswith(b"{") or name == "locomo":
            raise InputError(
                f"{stream.name}: expected a JSON array ({name}), found something else; is it another format?"
            )
        return cls(stream, name, False, "results.item" if name == "mem0" else "")

    def items(self, reading: Reading, start: int = 0) -> Iterator[Item]:
        """Yield records at or behind the position ``start``, and an error for each that can't be taken.

        Raises:
            InputError: the source can't be read on; what comes before has been yielded.
        """
        pages = _PAGES[self.format]
        if self.lines:
            return read_lines(self.stream, self.format, pages, reading, start)
        noun = "memory" if self.format == "mem0" else "conversation"
        return read_elements(self.stream, self.format, pages, reading, self.prefix, noun, start)
