"""Files that are one JSON document: its elements, one in memory at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO

import ijson
import ijson.backends.python

from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest.lines import Item, Pages, wrong
from mos_pipeline.ingest.nesting import shallow_events
from mos_pipeline.ingest.records import BOM, Reading, SourceRecord, Spot, named
from mos_pipeline.ingest.streams import Stream, available

__all__ = ["ELEMENT_BITS", "read_elements"]

ELEMENT_BITS = 20  # of a position are the page's number within its element
CHUNK = 1 << 20
_IDS = {"chatgpt": ("conversation_id", "id"), "claude": ("uuid",)}
# What ijson's fast parser has no room for: half of a pair of surrogates, which stands for no character, and whole
# numbers of more than 64 bits.
_HARD = re.compile(
    rb"\d{19}|\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_LONGEST = 20  # bytes of it


def read_elements(
    stream: Stream,
    format: str,  # noqa: A002
    pages: Pages,
    reading: Reading,
    prefix: str,
    noun: str,
    start: int = 0,
) -> Iterator[Item]:
    """Yield the pages at or behind position ``start``, and an error for each element that can't be read.

    Args:
        stream: where from.
        format: the format's name.
        pages: makes pages of an element.
        reading: how.
        prefix: where ijson finds the elements: ``item``, ``results.item``; empty for the document itself.
        noun: what an element is called in messages.
        start: a position, as a record before had it.

    Raises:
        InputError: the file can't be read on. All elements before have been yielded.
    """
    count = 0
    for number, element in enumerate(_elements(stream, prefix, reading)):
        reading.pulse()
        spot = Spot(stream.name, f"{noun} {number}" if prefix else noun)
        first = number << ELEMENT_BITS
        try:
            if not isinstance(element, dict):
                raise spot.error(f"expected an object, found {named(element)}")
            drafts = list(pages(element, spot, reading, first))
            if len(drafts) >> ELEMENT_BITS:
                raise spot.error(f"holds {len(drafts):,} pages, more than {1 << ELEMENT_BITS:,}; split it")
            thread = _thread(element, format, spot) if drafts else ""
        except RecordError as error:
            if first >= start:
                yield wrong(error, format, _raw(element))
            continue
        for index, draft in enumerate(drafts):
            if first + index >= start:
                yield SourceRecord(*draft, first + index, count + index, spot, b"", thread, format)
        count += len(drafts)


def _thread(element: dict[str, Any], format: str, spot: Spot) -> str:  # noqa: A002
    """Return the id of a conversation that services export whole, again and again; empty in other formats.

    Raises:
        RecordError: it has none: two that begin alike would be taken for one.
    """
    keys = _IDS.get(format, ())
    found = (element.get(key) for key in keys)
    named = next((value for value in found if isinstance(value, str) and value), "")
    if keys and not named:
        raise spot.error("is missing; give each conversation one, by which it is known in the next export", keys[0])
    return named


def _elements(stream: Stream, prefix: str, reading: Reading) -> Iterator[Any]:
    parser = _parser(stream, reading)
    with stream.opened() as file:
        head = file.read(len(BOM))
        try:
            events = shallow_events(_Prefixed(head.removeprefix(BOM), file), stream.name, parser)
            yield from parser.items(events, prefix)
        except InputError:  # is a ValueError, too
            raise
        except ijson.JSONError as error:
            raise InputError(f"{stream.name}: not valid JSON: {_reason(error)}") from None
        except (UnicodeDecodeError, RecursionError, ValueError) as error:
            raise InputError(f"{stream.name}: not valid JSON: {type(error).__name__}") from None


class _Prefixed:
    """A file with some bytes before it, which returns what there is: what comes before an error is not lost."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def read(self, size: int) -> bytes:
        if self._head and size:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return available(self._file, size)


def _parser(stream: Stream, reading: Reading) -> ModuleType:
    """Return ijson's fast parser, or the one in Python where the document holds what only that one can read."""
    before = b""
    try:
        with stream.opened() as file:
            while chunk := file.read(CHUNK):
                reading.pulse()
                text = before + chunk
                if _HARD.search(text, 0, len(text) - _LONGEST):
                    return _python
                before = text[-2 * _LONGEST :]
    except InputError:  # told by whoever reads
        pass
    return _python if _HARD.search(before) else ijson


_python: ModuleType = ijson.backends.python


def _raw(element: Any) -> bytes | None:
    try:
        return json.dumps(element).encode()
    except (RecursionError, ValueError):
        return None


def _reason(error: ijson.JSONError) -> str:
    """Return the parser's message without the text it quotes, which is somebody's talk."""
    message = error.args[0] if error.args else ""
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return text.strip().split("\n", 1)[0]
