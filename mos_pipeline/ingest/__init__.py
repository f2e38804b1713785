"""Reading pages from files: one module per format, and what has been read of a file already.

    file, stdin, folder ─ streams ─▶ bytes ─ detect ─▶ lines | elements ─ format ─▶ SourceRecord, or RecordError
    SourceFile + what a store knows ─ resume ─▶ the records that are new, each with the mark that it is kept under

A record that can't be taken is a ``RecordError`` that names the place; a file that can't be read on an ``InputError``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest.formats import FORMATS, SourceFile
from mos_pipeline.ingest.records import Reading, SourceRecord
from mos_pipeline.ingest.resume import resumed, wrong_at_first
from mos_pipeline.ingest.streams import Stream

__all__ = ["FORMATS", "Reading", "SourceFile", "SourceRecord", "Stream", "read_source", "resumed", "wrong_at_first"]


def read_source(
    path: str | os.PathLike[str],
    format: str = "auto",  # noqa: A002
    user: str | None = None,
    reading: Reading | None = None,
) -> Iterator[SourceRecord]:
    """Return an iterator over the file's records, in its order and with bounded memory.

    Args:
        path: a regular file; gzip and zstd are unpacked.
        format: one of ``FORMATS``; ``auto`` looks at the file's beginning.
        user: the user of records that name none.
        reading: everything else about how files are read.

    Raises:
        InputError: at once where the format is unknown or can't be told; while iterating where a record is wrong.
    """
    if user == "":
        raise InputError("user is empty; name a user, or leave it out where every record has one")
    source = SourceFile.of(Stream(Path(path)), format)
    return _strictly(source, reading or Reading(user=user))


def _strictly(source: SourceFile, reading: Reading) -> Iterator[SourceRecord]:
    for item in source.items(reading):
        if isinstance(item, RecordError):
            raise item
        yield item
