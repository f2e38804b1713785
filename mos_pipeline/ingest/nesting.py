"""JSON whose values lie in one another to some depth and no deeper, at the end of ways that are not too long."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Protocol

import ijson

from mos_pipeline.errors import InputError

__all__ = ["MAX_DEPTH", "Event", "Readable", "shallow_events"]

MAX_DEPTH = 100
MAX_WAY = 64 << 10  # characters of the keys that lead to a value

Event = tuple[str, str, Any]  # the way to it, what begins or ends or stands there, and its value


class Readable(Protocol):
    """What ijson reads from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


def shallow_events(file: Readable, name: str, parser: ModuleType = ijson) -> Iterator[Event]:
    """Yield the events of ``ijson.parse``, which remembers the whole way to each value that another one lies in.

    Args:
        file: where from.
        name: what it is called in messages.
        parser: ijson, or one of its backends.

    Raises:
        InputError: values are nested more than ``MAX_DEPTH`` deep, or the keys to one are longer than ``MAX_WAY``.
        ijson.JSONError: it is no JSON.
    """
    events: Iterator[Event] = parser.parse(_counted(file, name, parser))
    return events


def _counted(file: Readable, name: str, parser: ModuleType) -> Iterator[tuple[str, Any]]:
    keys, way = list[int](), 0  # the length of the key at each depth, and of all of them
    for event, value in parser.basic_parse(file, use_float=True):
        if event in {"start_map", "start_array"}:
            keys.append(0)
            if len(keys) > MAX_DEPTH:
                raise InputError(f"{name}: nested more than {MAX_DEPTH} deep; is it what it should be?")
        elif event == "map_key":
            way += len(value) - keys[-1]
            keys[-1] = len(value)
            if way > MAX_WAY:
                raise InputError(f"{name}: keys longer than {MAX_WAY:,} characters; is it what it should be?")
        elif event in {"end_map", "end_array"}:
            way -= keys.pop()
        yield event, value
