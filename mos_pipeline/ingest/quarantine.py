"""Records that were left out, one a line, to be mended and read again.

    {"reason": "…", "source": "chat.jsonl", "place": "line 3", "line": 3, "format": "jsonl", "raw": "{…}"}

``raw`` is the record as it stands in its file: as a string, or, where that is easier to mend, as the object itself.
Bytes that are no UTF-8 are lone surrogates in it; null is a record that is too long to be kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest.lines import Pages, object_of, wrong
from mos_pipeline.ingest.records import Draft, Reading, Spot

__all__ = ["QUARANTINE_KEYS", "Quarantine", "quarantined_pages"]

QUARANTINE_KEYS = {"reason", "source", "raw"}
_BEGINNING = b'{"reason": "'


class Quarantine:
    """A file that records are appended to, each once, however often they are met. A context manager.

    Attributes:
        path: the file; made with the first record.
        count: how many records were met.
    """

    def __init__(self, path: Path) -> None:
        """Append to ``path``.

        Raises:
            InputError: it can't be read, or holds something else.
        """
        self.path = path
        self.count = 0
        self._file: int | None = None
        self._known = set[bytes]()
        if path.exists():
            self._read()

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def put(self, error: RecordError) -> None:
        """Append the record that ``error`` is about, unless it is there.

        Raises:
            InputError: the file can't be written.
        """
        raw = None if error.raw is None else error.raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        entry = {
            "reason": error.reason,
            "source": error.source,
            "place": error.place,
            "line": error.line,
            "format": error.format,
            "raw": raw,
        }
        self.count += 1
        if (key := _key(entry)) in self._known:
            return
        self._known.add(key)
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                self._file = os.open(self.path, flags, 0o600)
            _write(self._file, json.dumps(entry).encode() + b"\n")
        except OSError as failed:
            raise self._unusable(f"can't be written ({failed.strerror})") from failed

    def _read(self) -> None:
        """Learn what is there, and make its last line whole."""
        try:
            with self.path.open("r+b") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        _end_line(file, line)
                    elif not line.isspace():
                        self._known.add(_key(json.loads(line)))
        except OSError as error:
            raise self._unusable(f"can't be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._unusable("is there and holds something else") from None

    def _unusable(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}; name another file for what is left out (--quarantine)")


def _end_line(file: BinaryIO, line: bytes) -> None:
    """End a last line that has no end: whoever mended it left that out, or whoever wrote it was killed over it.

    Raises:
        ValueError, KeyError, TypeError: it is no line of such a file.
    """
    try:
        _key(json.loads(line))
    except ValueError:
        if not _BEGINNING.startswith(line[: len(_BEGINNING)]):
            raise
        file.truncate(file.seek(-len(line), os.SEEK_END))
    else:
        file.write(b"\n")


def _key(entry: dict[str, Any]) -> bytes:
    """Return what tells a record from all others; of its text, which may be long, a checksum."""
    return hashlib.sha256(json.dumps([entry[name] for name in ("source", "place", "raw")]).encode()).digest()


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def quarantined_pages(formats: Mapping[str, Pages]) -> Pages:
    """Return what makes pages of a line of such a file, whose records are in one of ``formats``."""
    known = ", ".join(name for name in formats if name != "quarantine")

    def pages(data: dict[str, Any], spot: Spot, reading: Reading, position: int) -> Iterator[Draft]:
        raw, name = data.get("raw"), data.get("format")
        if not isinstance(name, str) or name not in formats:
            raise spot.error(f"must be one of {known}", "format")
        if not isinstance(raw, str | dict):
            raise spot.error("is not there, the record was too long; mend it in its source", "raw")
        text, inner = _bytes(raw), spot._replace(place="raw")
        try:
            yield from formats[name](object_of(text, inner), inner, reading, position)
        except RecordError as error:
            raise wrong(error, name, text) from None

    return pages


def _bytes(raw: str | dict[str, Any]) -> bytes:
    """Return the record in bytes, as it stands in its file; mended, it may be an object."""
    if isinstance(raw, dict):
        return json.dumps(raw).encode()
    try:
        return raw.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair of surrogates, which somebody has written there
        return "".join(f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else char for char in raw).encode()
