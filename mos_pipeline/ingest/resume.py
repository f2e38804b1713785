"""What a store has of a source already, so that reading it again goes on where it ended, even when it has grown.

A page that came from a file carries a mark: the name of its source, and an ordinal that ascends through it. The store
remembers each source's highest ordinal. Marks are of three kinds, told apart by the length of the name or its end:

- A *file* is named by its first record (16 bytes of its sha256), and one byte more, which tells apart files that begin
  alike. The ordinal is the record's position, shifted left, and 16 bits of its own checksum. So going on costs one look
  at the first record and one at the last that was taken: a file of lines is not read in between. If the last one
  is not where it was, the file has changed, and counts as another one.
- A *conversation*, as ChatGPT and Claude export them, is a source by itself, whatever file it stands in, and named by
  its id: from the next export only its new pages are taken. The ordinal counts pages, twice, and one more for a page
  with an answer, so that a question which had none is taken again once it has one.
- *The first version's* sources have 24 bytes, see ``sources``; their ordinals are numbers of lines.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest.elements import ELEMENT_BITS
from mos_pipeline.ingest.formats import SourceFile
from mos_pipeline.ingest.lines import Item
from mos_pipeline.ingest.records import Reading, SourceRecord
from mos_pipeline.ingest.sources import known_by_content
from mos_pipeline.messages import SourceMark

__all__ = ["Resumed", "Taken", "resumed", "wrong_at_first"]

CHECK_BITS = 16
OF_THREAD = b"\xff"


class Taken(NamedTuple):
    """What stands next in a source: a record or an error; ``mark`` is None where the store has the record already."""

    item: Item
    mark: SourceMark | None


class Resumed(NamedTuple):
    """A source from where it is to be read on.

    Attributes:
        start: the position up to which it was not read, since its records are in the store; 0 where it is read from
            its beginning.
        there: of a document, which is read through from its beginning, how many records stand up to that place.
        changed: whether a file that began like it was read once, and it is not as it was then.
        taken: what comes.
    """

    start: int
    there: int
    changed: bool
    taken: Iterator[Taken]


def resumed(source: SourceFile, reading: Reading, known: Mapping[bytes, int], *, whole: bool = False) -> Resumed:
    """Return the source from where it is to be read on.

    Args:
        source: the source.
        reading: how it is read.
        known: for every source of the store, its name and the ordinal after its highest, as ``sources()`` tells them.
        whole: whether all of it is read, and records before that place are told, too.

    Raises:
        InputError: the source can't be read.
    """
    found = _resumed(source, reading, known, whole)
    source.stream.decided()
    return found


def _resumed(source: SourceFile, reading: Reading, known: Mapping[bytes, int], whole: bool) -> Resumed:
    first = _first(source, reading)
    if first is None:
        return Resumed(0, 0, False, (Taken(item, None) for item in source.items(reading)))
    if first.thread:
        return Resumed(0, 0, False, _of_threads(source, reading, known))
    head = hashlib.sha256(first.content).digest()[:16]
    names = [head + bytes([number]) for number in range(OF_THREAD[0])]
    for name in names:
        if name in known and (found := _unchanged(source, reading, name, known[name] - 1)) is not None:
            return (
                Resumed(0, 0, False, _of_whole_file(source.items(reading), name, known[name] - 1)) if whole else found
            )
    # A pipe would have to be waited for until it is as long as the longest file, before any of it could be taken.
    old = None if source.stream.once else known_by_content(source.stream, known)
    if old is not None:
        return Resumed(0, 0, False, _of_old_file(source, reading, old, known[old]))
    unused = [name for name in names if name not in known]
    if not unused:
        raise InputError(f"{source.stream.name}: {len(names)} other files begin like it; begin it with another record")
    return Resumed(0, 0, unused[0] != names[0], _of_file(source.items(reading), unused[0]))


def wrong_at_first(source: SourceFile, reading: Reading) -> Iterator[RecordError]:
    """Yield what can't be taken before a source's first record, by which it is known and which may come late."""
    aside = replace(reading, tally=Counter())
    with suppress(InputError):  # told when it is read
        for item in source.items(aside):
            if isinstance(item, SourceRecord):
                return
            yield item


def _first(source: SourceFile, reading: Reading) -> SourceRecord | None:
    """Return the first record of a source."""
    aside = replace(reading, tally=Counter())  # what is left out is counted when it is read
    try:
        return next((item for item in source.items(aside) if isinstance(item, SourceRecord)), None)
    except InputError:  # told when it is read
        return None


def _ordinal(record: SourceRecord) -> int:
    return record.position << CHECK_BITS | zlib.crc32(record.content) & (1 << CHECK_BITS) - 1


def _unchanged(source: SourceFile, reading: Reading, name: bytes, last: int) -> Resumed | None:
    """Return what follows the record with the ordinal ``last``; None where it is not in its place."""
    aside = replace(reading, tally=Counter())
    items = source.items(aside, last >> CHECK_BITS)
    try:
        found = next(items, None)
    except InputError:  # it ends before that
        return None
    if not isinstance(found, SourceRecord) or _ordinal(found) != last:
        return None
    there = 0 if source.lines else found.number + 1
    return Resumed(found.position, there, False, _counted(_of_file(items, name), aside, reading))


def _counted(taken: Iterator[Taken], aside: Reading, reading: Reading) -> Iterator[Taken]:
    """Yield all of ``taken``; at its end count in ``reading`` what was counted aside."""
    try:
        yield from taken
    finally:
        reading.tally.update(aside.tally)


def _of_file(items: Iterator[Item], name: bytes) -> Iterator[Taken]:
    for item in items:
        yield Taken(item, SourceMark(name, _ordinal(item)) if isinstance(item, SourceRecord) else None)


def _of_whole_file(items: Iterator[Item], name: bytes, last: int) -> Iterator[Taken]:
    for item in items:
        if isinstance(item, SourceRecord):  # what was left out before the last one is not looked at again
            yield Taken(item, None)
            if _ordinal(item) == last:
                break
    yield from _of_file(items, name)


def _of_threads(source: SourceFile, reading: Reading, known: Mapping[bytes, int]) -> Iterator[Taken]:
    seen = dict(known)  # a conversation may stand in a file twice
    for item in source.items(reading):
        if not isinstance(item, SourceRecord):
            yield Taken(item, None)
            continue
        text = f"{item.format}\0{item.thread}"
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] + OF_THREAD
        ordinal = 2 * (item.position & (1 << ELEMENT_BITS) - 1) + bool(item.agent_response)
        new = ordinal >= seen.get(name, 0)
        seen[name] = max(seen.get(name, 0), ordinal + 1)
        yield Taken(item, SourceMark(name, ordinal) if new else None)


def _of_old_file(source: SourceFile, reading: Reading, name: bytes, next_number: int) -> Iterator[Taken]:
    for item in source.items(reading):
        new = isinstance(item, SourceRecord) and item.number >= next_number
        yield Taken(item, SourceMark(name, item.number) if new and isinstance(item, SourceRecord) else None)
