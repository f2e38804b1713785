"""Which format a source is in, by its first kilobytes."""

from __future__ import annotations

import io
import json

import ijson

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.nesting import parser_of, shallow_events
from mos_pipeline.ingest.quarantine import QUARANTINE_KEYS
from mos_pipeline.ingest.records import BOM
from mos_pipeline.ingest.streams import Stream, available

__all__ = ["detect", "first_bytes", "is_lines"]

HEAD_BYTES = 64 << 10
_LOCOMO = {"sample_id", "conversation", "qa"}
_MESSAGES = {"messages", "conversations"}


def detect(stream: Stream) -> str:
    """Return the name of the source's format; ``jsonl`` where it is empty.

    Raises:
        InputError: it can't be told, or the source can't be read.
    """
    head = first_bytes(stream)
    found = None
    if not head or head.startswith(b"{"):
        found = _of_object(_keys(head, "")[0])
    elif head.startswith(b"["):
        found = _of_element(_keys(head, "item")[0])
    if found is None:
        raise InputError(
            f"{stream.name}: its format can't be told from its beginning; known are jsonl (an object on every line), "
            "messages, chatgpt, claude, locomo and mem0, see docs/ingest.md: name one (--format), or convert the file"
        )
    return found


def first_bytes(stream: Stream) -> bytes:
    """Return the source's beginning, as far as it counts: of a stream that goes on, what tells its format."""
    head = b""
    try:
        with stream.opened() as file:
            while len(head) < HEAD_BYTES and (more := available(file, HEAD_BYTES - len(head))):
                head += more
                if _tells(_text(head)):
                    break
    except InputError:
        if not head:
            raise
    return _text(head)


def _text(head: bytes) -> bytes:
    return head.removeprefix(BOM).lstrip()


def _tells(head: bytes) -> bool:
    """Return whether more of a source than this can't change what its format is."""
    if head.startswith(b"["):
        return _keys(head, "item")[1]
    if head.startswith(b"{"):
        return (b"\n" in head and is_lines(head)) or _keys(head, "")[1]
    return bool(head) and not BOM.startswith(head)


def is_lines(head: bytes) -> bool:
    """Return whether a source with this beginning has an object on every line, and isn't one over several lines."""
    if not head.startswith(b"{"):
        return False
    line, more, _ = head.partition(b"\n")
    if not more and len(head) >= HEAD_BYTES:
        return True  # nobody who breaks lines writes lines that long
    try:
        json.loads(line)
    except RecursionError:
        return True
    except ValueError:  # the beginning of an object that goes on, as people's eyes like it, or a line that is wrong
        return not line.rstrip().endswith((b"{", b"[", b",", b":"))
    return True


def _of_object(keys: set[str]) -> str | None:
    if "mapping" in keys:
        return "chatgpt"
    if "chat_messages" in keys:
        return "claude"
    if keys & _MESSAGES:
        return "messages"
    if keys >= QUARANTINE_KEYS:
        return "quarantine"
    return "mem0" if "results" in keys else "jsonl"


def _of_element(keys: set[str]) -> str | None:
    if keys & _LOCOMO:
        return "locomo"
    if "memory" in keys or keys >= {"text", "user_id"}:
        return "mem0"
    found = _of_object(keys - {"results"})
    return None if found in {"jsonl", "quarantine"} else found


def _keys(head: bytes, prefix: str) -> tuple[set[str], bool]:
    """Return the keys of the object at ``prefix``, as far as ``head`` reaches, and whether these are all."""
    keys = set[str]()
    text = head.decode("utf-8", "ignore").encode()  # bytes that are none say nothing about the format
    try:
        for at, event, value in shallow_events(io.BytesIO(text), "", parser_of(text)):
            if (at, event) == (prefix, "map_key"):
                keys.add(value)
            elif (at, event) == (prefix, "end_map"):
                return keys, True
    except (ijson.JSONError, ValueError, InputError):  # it ends somewhere, or is wrong: the reader tells which
        pass
    return keys, False
