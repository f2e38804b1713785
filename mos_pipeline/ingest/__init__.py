"""Reading pages from files: one module per format, and the identity of a file for resuming.

    path ─ detect ─▶ jsonl | locomo ─▶ SourceRecord, one at a time, with its ordinal
    path ─ identify ─▶ SourceIdentity: the name under which its pages are kept

A wrong file or record is an ``InputError`` that names the place; what came before it has been read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.detect import detect
from mos_pipeline.ingest.jsonl import read_jsonl
from mos_pipeline.ingest.locomo import read_locomo
from mos_pipeline.ingest.records import SourceRecord
from mos_pipeline.ingest.sources import SourceIdentity, identify

__all__ = ["FORMATS", "SourceIdentity", "SourceRecord", "identify", "read_source"]

_READERS = {"jsonl": read_jsonl, "locomo": read_locomo}
FORMATS = ("auto", *_READERS)


def read_source(
    path: str | os.PathLike[str],
    format: str = "auto",  # noqa: A002
    user: str | None = None,
) -> Iterator[SourceRecord]:
    """Return an iterator over the file's records, in its order and with bounded memory.

    Args:
        path: a regular file.
        format: one of ``FORMATS``; ``auto`` looks at the file's beginning.
        user: the user of records that name none.

    Raises:
        InputError: at once where the format is unknown or can't be told; while iterating where a record is wrong.
    """
    path = Path(path)
    if user == "":
        raise InputError("user is empty; name a user, or leave it out where every record has one")
    name = detect(path) if format == "auto" else format
    if name not in _READERS:
        raise InputError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    return _READERS[name](path, user)
