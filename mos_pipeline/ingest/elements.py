"""Files that are one JSON document: its elements, one in memory at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO

import ijson

from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest.lines import Item, Pages, wrong
from mos_pipeline.ingest.nesting import HARD_BYTES, Event, is_hard, parser_of, python, shallow_events
from mos_pipeline.ingest.records import BOM, Reading, SourceRecord, Spot, named
from mos_pipeline.ingest.streams import Stream, available

__all__ = ["ELEMENT_BITS", "read_elements"]

ELEMENT_BITS = 20  # of a position are the page's number within its element
CHUNK = 1 << 20
_IDS = {"chatgpt": ("conversation_id", "id"), "claude": ("uuid",)}
_SYMBOL = re.compile(r"Unexpected symbol .* at (\d+)", re.DOTALL)


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
    for number, element in enumerate(_elements(stream, prefix, noun, reading)):
        reading.pulse()
        spot = Spot(stream.name, _place(noun, number, prefix))
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
                where = spot.of_page(index, len(drafts))
                yield SourceRecord(*draft, first + index, count + index, where, b"", thread, format)
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


def _place(noun: str, number: int, prefix: str) -> str:
    return f"{noun} {number}" if prefix else noun


def _elements(stream: Stream, prefix: str, noun: str, reading: Reading) -> Iterator[Any]:
    parser = _parser(stream, reading)
    with stream.opened() as file:
        text = _Text(file, stream.name, reading.max_record_bytes)
        text.begin(_place(noun, 0, prefix))
        events = shallow_events(text, stream.name, parser)
        if prefix.endswith(".item"):
            events = _with_array(events, prefix.removesuffix(".item"), stream.name)
        try:
            for number, element in enumerate(parser.items(events, prefix), 1):
                yield element
                text.begin(_place(noun, number, prefix))
        except (ijson.JSONError, RecursionError, ValueError) as error:
            raise text.failed or _unreadable(error, stream.name) from None
        if text.failed:  # behind the document's end
            raise text.failed


def _unreadable(error: Exception, name: str) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = _reason(error) if isinstance(error, ijson.JSONError) else type(error).__name__
    return InputError(f"{name}: not valid JSON: {reason}")


def _with_array(events: Iterator[Event], at: str, name: str) -> Iterator[Event]:
    """Yield all events.

    Raises:
        InputError: there was no array at ``at``: nothing would have been read, and nobody told.
    """
    found = False
    for event in events:
        found = found or event[:2] == (at, "start_array")
        yield event
    if not found:
        raise InputError(f"{name}: {at} is missing, or no list; is it another format?")


class _Text:
    """A file as UTF-8, which returns what there is: what comes before an error is not lost with it.

    Attributes:
        failed: why it can't be read on; for the parser it ends there.
    """

    def __init__(self, file: BinaryIO, name: str, most: int) -> None:
        """Read ``file``, called ``name``, of which an element may take ``most`` bytes."""
        self.failed: InputError | None = None
        self._file = file
        self._name = name
        self._most = most
        self._place, self._begin = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._done = 0
        self._head = file.read(len(BOM)).removeprefix(BOM)

    def begin(self, place: str) -> None:
        """Say that what was not read yet belongs to the element ``place``."""
        self._place, self._begin = place, self._done

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes that are UTF-8; none at the end, or where it can't be read on."""
        if self.failed:
            return b""
        if self._done - self._begin > self._most:  # all before has been used, or nothing more would be asked for
            limit = f"longer than {self._most:,} bytes, six for each of store.max_page_bytes"
            self.failed = InputError(f"{self._name}, {self._place}: {limit}; split it, or raise that limit")
            return b""
        try:
            data = self._whole(self._more(size), size)
        except InputError as error:
            self.failed = error
            return b""
        self._done += len(data)
        return data

    def _more(self, size: int) -> bytes:
        if self._head and size:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return available(self._file, size)

    def _whole(self, data: bytes, size: int) -> bytes:
        """Return ``data`` as far as it is UTF-8."""
        waiting = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(data, not data and size > 0)
        except UnicodeDecodeError as error:
            at = self._done - waiting + error.start
            self.failed = InputError(f"{self._name}: not UTF-8 at byte {at:,} of its text; convert the file")
            return data[: max(0, error.start - waiting)]
        return data


def _parser(stream: Stream, reading: Reading) -> ModuleType:
    """Return ijson's fast parser, or the one in Python where the document holds what only that one can read."""
    before = b""
    try:
        with stream.opened() as file:
            while chunk := file.read(CHUNK):
                reading.pulse()
                text = before + chunk
                if is_hard(text, len(text) - HARD_BYTES):
                    return python
                before = text[-2 * HARD_BYTES :]
    except InputError:  # told by whoever reads
        pass
    return parser_of(before)


def _raw(element: Any) -> bytes | None:
    try:
        return json.dumps(element).encode()
    except (RecursionError, ValueError):
        return None


def _reason(error: ijson.JSONError) -> str:
    """Return the parser's message without the text it quotes, which is somebody's talk."""
    message = error.args[0] if error.args else ""
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    if symbol := _SYMBOL.fullmatch(text):
        return f"unexpected symbol at character {int(symbol[1]):,}"
    return text.strip().split("\n", 1)[0][:200]
