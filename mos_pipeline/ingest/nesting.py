"""JSON whose values lie in one another to some depth and no deeper."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Protocol

import ijson

from mos_pipeline.errors import InputError

__all__ = ["MAX_DEPTH", "Event", "Readable", "shallow_events"]

MAX_DEPTH = 100

Event = tuple[str, str, Any]  # the way to it, what begins or ends or stands there, and its value


class Readable(Protocol):
    """What ijson reads from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


def shallow_events(file: Readable, name: str, parser: ModuleType = ijson) -> Iterator[Event]:
    """Yield the events of ``ijson.parse``, which remembers the whole way to each value: memory grows with its square.

    Args:
        file: where from.
        name: what it is called in messages.
        parser: ijson, or one of its backends.

    Raises:
        InputError: values are nested more than ``MAX_DEPTH`` deep.
        ijson.JSONError: it is no JSON.
    """
    events: Iterator[Event] = parser.parse(_counted(file, name, parser))
    return events


def _counted(file: Readable, name: str, parser: ModuleType) -> Iterator[tuple[str, Any]]:
    depth = 0
    for event, value in parser.basic_parse(file, use_float=True):
        if event in {"start_map", "start_array"}:
            depth += 1
            if depth > MAX_DEPTH:
                raise InputError(f"{name}: nested more than {MAX_DEPTH} deep; is it what it should be?")
        elif event in {"end_map", "end_array"}:
            depth -= 1
        yield event, value
