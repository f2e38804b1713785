"""Fields of a file's JSON, each with the type that it must have; what has another is a problem, and left out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np

from mos_pipeline.legacy.model import Problem
from mos_pipeline.memory.takeover import Vector

__all__ = ["Fields"]

NORMS = 0.9, 1.1  # of a vector that counts as L2-normalised
ROUNDING = 1e-3  # how far that of one in float16 may be from 1
_NAMES = {bool: "true or false", str: "a string", dict: "an object", list: "a list", type(None): "null"}


class Fields:
    """An object of a file, and where it stands.

    Attributes:
        data: its fields.
        file: the file.
        path: where in it; empty for the file's own object.
    """

    def __init__(self, data: dict[str, Any], file: str, path: str, problems: list[Problem]) -> None:
        """Look at ``data``; what is wrong with it is appended to ``problems``."""
        self.data = data
        self.file = file
        self.path = path
        self._problems = problems

    def place(self, name: str = "") -> str:
        """Return where a field of it stands."""
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def wrong(self, name: str, reason: str) -> None:
        """Note what is wrong with a field, or (an empty ``name``) with all of it."""
        self._problems.append(Problem(self.file, self.place(name), reason))

    def _typed(self, name: str, kind: type, default: Any) -> Any:
        value = self.data.get(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            self.wrong(name, f"must be {_NAMES[kind]}, found {_named(value)}")
            return default
        return value

    def text(self, name: str) -> str:
        """Return a string; empty where it is missing."""
        found: str = self._typed(name, str, "")
        return found

    def needed_text(self, name: str) -> str | None:
        """Return a string; empty where it is missing or null, None where it is something else."""
        found: str | None = self._typed(name, str, None)
        return "" if self.data.get(name) is None else found

    def flag(self, name: str) -> bool:
        """Return a truth value; False where it is missing."""
        found: bool = self._typed(name, bool, False)
        return found

    def count(self, name: str) -> int:
        """Return a number of at least 0 as a whole one; 0 where it is missing."""
        value = self.data.get(name, 0)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
            self.wrong(name, f"must be a number of at least 0, found {_named(value)} ({value!r:.40})")
            return 0
        return int(value)

    def moment(self, name: str) -> float:
        """Return a time of this machine's clock (``YYYY-MM-DD HH:MM:SS``) in seconds since 1970; 0 for none."""
        text = self.text(name)
        if not text:
            return 0.0
        try:
            return max(0.0, datetime.fromisoformat(text).timestamp())
        except (ValueError, OverflowError):
            self.wrong(name, f"must be a time as 2026-03-01 10:00:00, found {text!r:.40}")
            return 0.0

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        found = self._typed(name, list, [])
        if not all(isinstance(item, str) for item in found):
            self.wrong(name, "must hold strings alone")
        return tuple(item for item in found if isinstance(item, str))

    def objects(self, name: str) -> Iterator[Fields]:
        """Yield the objects of a list."""
        for index, item in enumerate(self._typed(name, list, [])):
            if (found := self._object(item, f"{name}[{index}]")) is not None:
                yield found

    def mapped(self, name: str) -> Iterator[tuple[str, Fields]]:
        """Yield the objects of an object, with their names."""
        for key, item in self._typed(name, dict, {}).items():
            if (found := self._object(item, f"{name}.{key}")) is not None:
                yield key, found

    def _object(self, item: Any, name: str) -> Fields | None:
        if isinstance(item, dict):
            return Fields(item, self.file, self.place(name), self._problems)
        self.wrong(name, f"must be an object, found {_named(item)}")
        return None

    def vector(self, name: str) -> Vector | None:
        """Return a vector, float16 (dimension,), L2-normalised; None where there is none of about length 1."""
        value = self.data.get(name)
        if not isinstance(value, list) or not value:
            return None
        try:
            found = np.array(value, np.float64)
        except (ValueError, TypeError, OverflowError):
            return None
        if found.ndim != 1 or not np.all(np.abs(found) <= NORMS[1]):
            return None
        norm = float(np.linalg.norm(found))
        if not NORMS[0] <= norm <= NORMS[1]:
            return None
        # What was rounded to float16 once comes out as it was.
        return (found if abs(norm - 1) < ROUNDING else found / norm).astype(np.float16)


def _named(value: object) -> str:
    return _NAMES.get(type(value), "a number")
