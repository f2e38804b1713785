"""Files of JSON objects, one a line: read from any line on, one line in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, BinaryIO

from mos_pipeline.errors import RecordError
from mos_pipeline.ingest.records import Draft, Reading, SourceRecord, Spot, named
from mos_pipeline.ingest.streams import Stream

__all__ = ["Item", "Pages", "object_of", "read_lines", "wrong"]

BACK = 64 << 10
BOM = "\ufeff"  # as text
CHUNK = 256 << 10

Item = SourceRecord | RecordError
Pages = Callable[[dict[str, Any], Spot, Reading, int], Iterable[Draft]]  # the int: the record's position


def read_lines(stream: Stream, format: str, pages: Pages, reading: Reading, start: int = 0) -> Iterator[Item]:  # noqa: A002
    """Yield the pages at or behind position ``start``, and an error for each line that holds none.

    Args:
        stream: where from.
        format: the format's name.
        pages: makes pages of a line's object.
        reading: how.
        start: a position, as a record before had it.

    Raises:
        InputError: the file can't be read on.
    """
    plain = stream.plain
    with stream.opened() as file:
        begin = offset = _go_to(file, start) if start and plain else 0
        number, before = 0, cache(partial(_lines_before, stream, begin))
        if stream.once:
            before()  # while it can be read again
        while line := file.readline(reading.max_record_bytes + 1):
            at, spot = offset, Spot(stream.name, "", partial(_line_number, before, number))
            too_long = len(line) > reading.max_record_bytes
            offset += len(line) + (_skip_line(file) if too_long and not line.endswith(b"\n") else 0)
            number += 1
            reading.pulse()
            if offset <= start or line.isspace():
                continue
            if too_long:
                limit = f"longer than {reading.max_record_bytes:,} bytes, six for each of store.max_page_bytes"
                yield wrong(spot.error(f"{limit}; is every record on a line of its own?"), format, None)
            else:
                line = line.rstrip(b"\r\n")  # the last one's may come later
                yield from _records(line, spot, format, pages, reading, at, number - 1, start)


def _line_number(before: Callable[[], int], number: int) -> int:
    """Return the number, from 1, of the line ``number``, from 0, of those that were read."""
    return before() + number + 1


def _records(
    line: bytes,
    spot: Spot,
    format: str,  # noqa: A002
    pages: Pages,
    reading: Reading,
    at: int,
    number: int,
    start: int,
) -> list[Item]:
    """Return the pages of a line: all of them, or an error."""
    try:
        drafts = list(pages(object_of(line, spot), spot, reading, at))
    except RecordError as error:
        return [wrong(error, format, line)]
    return [
        SourceRecord(*draft, at + index, number, spot.of_page(index, len(drafts)), line, "", format)
        for index, draft in enumerate(drafts)
        if at + index >= start
    ]


def wrong(error: RecordError, format: str, raw: bytes | None) -> RecordError:  # noqa: A002
    """Return ``error`` with the record that it is about, unless it has it already."""
    if not error.format:
        error.format, error.raw = format, raw
    return error


def object_of(text: bytes, spot: Spot) -> dict[str, Any]:
    """Return the JSON object that ``text`` is; it may begin with a byte order mark, as files do.

    Raises:
        RecordError: it is something else.
    """
    try:
        data = json.loads(text.decode("utf-8").removeprefix(BOM))
    except UnicodeDecodeError as error:
        raise spot.error(f"not UTF-8 at byte {error.start} of the line; convert the file") from None
    except json.JSONDecodeError as error:
        raise spot.error(f"not valid JSON at column {error.colno}: {error.msg}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise spot.error(f"not valid JSON: {error}") from None
    except RecursionError:
        raise spot.error("nested too deeply; flatten the metadata") from None
    if not isinstance(data, dict):
        raise spot.error(f"expected an object, found {named(data)}")
    return data


def _go_to(file: BinaryIO, position: int) -> int:
    """Go to the beginning of the line that holds the byte ``position``; return where that is."""
    end = position
    while end > 0:
        begin = max(0, end - BACK)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return file.seek(begin + found + 1)
        end = begin
    return file.seek(0)


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; return how many bytes that was."""
    skipped = 0
    while part := file.readline(CHUNK):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _lines_before(stream: Stream, offset: int) -> int:
    count = 0
    if offset:
        with stream.opened() as file:
            while offset > 0 and (chunk := file.read(min(CHUNK, offset))):
                count += chunk.count(b"\n")
                offset -= len(chunk)
    return count
