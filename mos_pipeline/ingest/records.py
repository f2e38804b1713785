"""What every format is read into, the checks the formats share, and opening a file."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mos_pipeline.errors import InputError

__all__ = ["BOM", "SourceRecord", "field_of", "opened"]

BOM = b"\xef\xbb\xbf"  # some editors begin UTF-8 files with it


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A page as it stands in a file.

    Attributes:
        ordinal: the record's number in the file, from 0; what resuming goes by. Ascending, with gaps where a format
            has records that are no pages (blank lines).
    """

    user_id: str
    assistant_id: str | None
    user_input: str
    agent_response: str
    timestamp: str | None
    metadata: dict[str, Any] | None
    page_id: str | None
    ordinal: int


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading bytes.

    Raises:
        InputError: it is not there, not readable or no regular file (it is read more than once, so a pipe won't do);
            or reading fails inside the ``with``.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file; write its content to one first")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); name a readable file") from error


def field_of(record: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return ``record[name]``, or None where it is absent or null.

    Raises:
        InputError: it is of another type than ``kind``; the message begins with ``where``.
    """
    value = record.get(name)
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{where}: {name} must be {_NAMES[kind]}, found {_NAMES.get(type(value), 'a number')}")
    return value


_NAMES = {str: "a string", dict: "an object", list: "a list", bool: "true or false"}
