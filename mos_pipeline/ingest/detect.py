"""Which format a file is in, by its first kilobytes."""

from __future__ import annotations

import io
from pathlib import Path

import ijson

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.nesting import shallow_events
from mos_pipeline.ingest.records import BOM, opened

__all__ = ["detect"]

HEAD_BYTES = 64 << 10
_LOCOMO_KEYS = {"sample_id", "conversation", "qa"}


def detect(path: Path) -> str:
    """Return ``jsonl`` where the file begins with an object, or is empty; ``locomo`` where with an array of samples.

    Raises:
        InputError: it begins with neither, or can't be read.
    """
    with opened(path) as file:
        head = file.read(HEAD_BYTES).removeprefix(BOM).lstrip()
    if not head or head.startswith(b"{"):
        return "jsonl"
    if head.startswith(b"[") and _first_keys(head, path) & _LOCOMO_KEYS:
        return "locomo"
    raise InputError(
        f"{path}: its format can't be told from its beginning; known are jsonl (an object on every line) and locomo "
        "(an array of objects with sample_id and conversation): name one, or convert the file"
    )


def _first_keys(head: bytes, path: Path) -> set[str]:
    """Return the keys of the array's first element, as far as ``head`` reaches."""
    keys = set()
    try:
        for prefix, event, value in shallow_events(io.BytesIO(head), path):
            if (prefix, event) == ("item", "map_key"):
                keys.add(value)
            elif (prefix, event) == ("item", "end_map"):
                break
    except ijson.JSONError:  # the head ends somewhere, or this is no JSON; the reader tells which
        return keys
    return keys
