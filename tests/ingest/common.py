"""What the readers' tests share: files to read, and records as what they say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mos_pipeline.errors import RecordError
from mos_pipeline.ingest import Reading, SourceFile, SourceRecord, Stream, resumed
from mos_pipeline.ingest.resume import Resumed

__all__ = ["Store", "errors", "items", "page", "records", "said", "written"]


class Store:
    """Remembers what it took, as a store does."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}
        self.texts: list[str] = []

    def look(self, path: Path, format: str = "auto", **reading: Any) -> Resumed:  # noqa: A002
        return resumed(SourceFile.of(Stream(path), format), Reading(**{"user": "u", **reading}), self.known)

    def take(self, path: Path, most: int = 1 << 30, **reading: Any) -> Resumed:
        """Take the new records of a file, as many as ``most``; return how it was gone on with."""
        found = self.look(path, **reading)
        for taken in found.taken:
            if taken.mark is not None and most > 0:
                assert isinstance(taken.item, SourceRecord)
                assert self.known.get(taken.mark.digest, 0) <= taken.mark.ordinal < 1 << 63
                self.known[taken.mark.digest] = taken.mark.ordinal + 1
                self.texts.append(taken.item.user_input)
                most -= 1
            if most == 0:
                break
        return found


def page(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a page as a line of JSON Lines holds it; a change to ``...`` takes a field away."""
    whole = {"user_id": "u", "user_input": f"question {number}", "agent_response": f"answer {number}"} | changes
    return {name: value for name, value in whole.items() if value is not ...}


def written(folder: Path, content: bytes | str | Iterable[Any] | dict[str, Any], name: str = "input") -> Path:
    """Write bytes or text as they are, a dict as one JSON document, anything else as one JSON value a line."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str | dict):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    else:
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in content))
    return path


def items(path: Path, format: str = "auto", start: int = 0, **reading: Any) -> list[SourceRecord | RecordError]:  # noqa: A002
    """Return everything that is read of a file."""
    return list(SourceFile.of(Stream(path), format).items(Reading(**{"user": "u", **reading}), start))


def records(path: Path, format: str = "auto", **reading: Any) -> list[SourceRecord]:  # noqa: A002
    """Return its records; there must be no errors."""
    found = items(path, format, **reading)
    assert not [str(item) for item in found if isinstance(item, RecordError)]
    return [item for item in found if isinstance(item, SourceRecord)]


def errors(path: Path, format: str = "auto", **reading: Any) -> list[str]:  # noqa: A002
    """Return what is wrong in a file, without its name."""
    found = [item for item in items(path, format, **reading) if isinstance(item, RecordError)]
    return [str(error).removeprefix(f"{path}, ") for error in found]


def said(found: Iterable[SourceRecord]) -> list[tuple[str, str]]:
    """Return both sides of records."""
    return [(record.user_input, record.agent_response) for record in found]
