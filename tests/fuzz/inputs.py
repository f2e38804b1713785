"""Input files of every format to begin with, and what must hold of whatever is read of any file."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest import FORMATS, Reading, SourceFile, SourceRecord, Stream
from mos_pipeline.ingest.elements import ELEMENT_BITS
from mos_pipeline.messages import decode, encode, nested_too_deeply
from tests.fuzz.common import CORPUS

__all__ = ["FILES", "LINES", "Outcome", "corpus", "drafts", "element_of", "outcome"]

FILES = {
    "pages.jsonl": "jsonl",
    "chats.jsonl": "messages",
    "chat.json": "messages",
    "sharegpt.json": "messages",
    "chatgpt.json": "chatgpt",
    "claude.json": "claude",
    "talk.json": "locomo",
    "memories.json": "mem0",
    "memories-list.json": "mem0",
    "left-out.jsonl": "quarantine",
}
LINES = {"pages.jsonl", "chats.jsonl", "left-out.jsonl"}
LONGEST = 1000  # characters of an error: it names what is wrong, and does not tell all of it
PATIENCE_S = 60.0  # it only keeps a reader that does not end from hanging for ever


def corpus(name: str) -> bytes:
    """Return a file of the corpus."""
    return (CORPUS / name).read_bytes()


class Outcome(NamedTuple):
    """What was read of a file: its items; the error that ended it, where one did; what was left out on purpose."""

    items: list[SourceRecord | RecordError]
    end: InputError | None
    tally: Counter[str]

    @property
    def records(self) -> list[SourceRecord]:
        return [item for item in self.items if isinstance(item, SourceRecord)]

    @property
    def errors(self) -> list[RecordError]:
        return [item for item in self.items if isinstance(item, RecordError)]


def outcome(path: Path, data: bytes, format: str = "auto", start: int = 0, **reading: Any) -> Outcome:  # noqa: A002
    """Write ``data`` to ``path``, read it, and check all that must hold whatever it is.

    An error that is neither of a record nor of the file goes through.
    """
    path.write_bytes(data)
    items, end, tally = list[SourceRecord | RecordError](), None, Counter[str]()
    with _ending():
        try:
            source = SourceFile.of(Stream(path), format)
            items.extend(source.items(Reading(**{"user": "someone", "tally": tally, **reading}), start))
        except InputError as error:
            assert not isinstance(error, RecordError), "a wrong record ended the reading"
            assert str(error).startswith(f"{path}: ") or str(error).startswith(f"{path}, ")
            assert len(str(error)) < LONGEST
            end = error
    before = start - 1
    for item in items:
        if isinstance(item, RecordError):
            _check_error(item, path, lines=source.lines)
        else:
            _check_record(item)
            assert item.position > before, "positions ascend"
            before = item.position
    return Outcome(items, end, tally)


@contextmanager
def _ending() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"reading did not end in {PATIENCE_S:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _check_error(error: RecordError, path: Path, *, lines: bool) -> None:
    assert len(str(error)) < LONGEST
    assert str(error) == f"{path}, {error.place}: {error.reason}"
    assert error.source == str(path)
    assert error.format in FORMATS
    if lines:
        assert error.line is not None
        assert error.place.partition(",")[0] == f"line {error.line}"
    else:
        assert error.line is None
        assert error.place.startswith(("conversation", "memory"))
    if error.field is not None:
        assert error.reason.startswith(f"{error.field} ")


def _check_record(record: SourceRecord) -> None:
    assert isinstance(record.user_id, str)
    assert record.user_id
    for text in (record.user_input, record.agent_response):
        assert isinstance(text, str)
    for name in (record.assistant_id, record.page_id):
        assert name is None or (isinstance(name, str) and name)
    assert record.timestamp is None or isinstance(record.timestamp, str)
    assert record.metadata is None or isinstance(record.metadata, dict)
    assert not nested_too_deeply(record.metadata)
    packed = encode([*record[:7]])  # as a store keeps it; bytes, since NaN is not equal to itself
    assert encode(decode(packed)) == packed
    assert isinstance(record.content, bytes)


def drafts(records: list[SourceRecord]) -> list[bytes]:
    """Return what records say, without their places, to be compared: NaN is not equal to itself."""
    return [encode([*record[:7]]) for record in records]


def element_of(item: SourceRecord | RecordError) -> int:
    """Return the number, from 0, of the line or element that an item stands in."""
    if isinstance(item, RecordError):
        number = re.search(r"\d+", item.place.partition(",")[0])  # none where the document is the element
        return item.line - 1 if item.line is not None else int(number[0]) if number else 0
    return item.number if item.raw else item.position >> ELEMENT_BITS
