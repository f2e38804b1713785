"""JSON Lines: one page a line, as an object.

    {"user_id": "u", "user_input": "…", "agent_response": "…",
     "assistant_id": "…", "timestamp": "YYYY-MM-DD HH:MM:SS", "metadata": {…}, "page_id": "…"}

The first three are required (``user_id`` unless the caller gives one), null counts as absent. Blank lines are skipped
and counted: a record's ordinal is its line's index, from 0.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.records import BOM, SourceRecord, field_of, opened
from mos_pipeline.messages import encode

__all__ = ["MAX_LINE_BYTES", "read_jsonl"]

MAX_LINE_BYTES = 64 << 20
_TEXTS = ("user_id", "user_input", "agent_response", "assistant_id", "timestamp", "page_id")
_KNOWN = frozenset((*_TEXTS, "metadata"))


def read_jsonl(path: Path, user: str | None = None) -> Iterator[SourceRecord]:
    """Yield the file's records, holding one line in memory at a time; ``user`` stands in for a missing ``user_id``.

    Raises:
        InputError: naming the file, the line (from 1), the field and what is wrong with it. The records before it have
            been yielded.
    """
    with opened(path) as file:
        for ordinal, line in _lines(file, path):
            where = f"{path}, line {ordinal + 1}"
            yield _record(_object(line, where), user, ordinal, where)


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their index."""
    for ordinal, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")):
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"{path}, line {ordinal + 1}: longer than {MAX_LINE_BYTES} bytes; is every record on a line of its own?"
            )
        content = line.removeprefix(BOM) if ordinal == 0 else line
        if content and not content.isspace():
            yield ordinal, content


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 at byte {error.start} of the line; convert the file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON at column {error.colno}: {error.msg}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{where}: not valid JSON: {error}") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; flatten the metadata") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object with {', '.join(_TEXTS[:3])}, found {type(data).__name__}")
    return data


def _record(data: dict[str, Any], user: str | None, ordinal: int, where: str) -> SourceRecord:
    for name in sorted(name[:64] for name in data.keys() - _KNOWN):
        near = difflib.get_close_matches(name, sorted(_KNOWN), n=1, cutoff=0.0)[0]
        raise InputError(f"{where}: unknown field {name!r}; the nearest known one is {near!r}; extras go into metadata")
    texts = {name: field_of(data, name, str, where) for name in _TEXTS}
    if texts["user_id"] is None:
        texts["user_id"] = user
    for name in _TEXTS[:3]:
        if texts[name] is None:
            raise InputError(f"{where}: {name} is missing{_HINTS.get(name, '')}")
    if not texts["user_id"]:
        raise InputError(f"{where}: user_id is empty; give every page a user")
    return SourceRecord(**texts, metadata=_metadata(data, where), ordinal=ordinal)


_HINTS = {
    "user_id": "; put it on the line, or name a user for the whole file",
    "user_input": "; an empty side is written as an empty string",
    "agent_response": "; an empty side is written as an empty string",
}


def _metadata(data: dict[str, Any], where: str) -> dict[str, Any] | None:
    metadata: dict[str, Any] | None = field_of(data, "metadata", dict, where)
    if metadata:
        try:
            encode(metadata)
        except (ValueError, OverflowError) as error:  # an integer of more than 64 bits
            raise InputError(f"{where}: metadata can't be stored: {error}") from None
    return metadata
