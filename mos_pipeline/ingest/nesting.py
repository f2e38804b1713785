"""Parsers of JSON documents: which of two, and only to some depth, at the end of ways that are not too long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Protocol

import ijson
import ijson.backends.python

from mos_pipeline.errors import InputError

__all__ = ["HARD_BYTES", "MAX_DEPTH", "Event", "Readable", "is_hard", "parser_of", "python", "shallow_events"]

MAX_DEPTH = 100
MAX_WAY = 64 << 10  # characters of the keys that lead to a value
HARD_BYTES = 20  # of what makes a text hard to read

# What ijson's fast parser has no room for: whole numbers of more than 64 bits, and half of a pair of surrogates, which
# stands for no character: a first without a second, a second without a first, and one behind what only looks like a
# first, since its backslash is itself escaped. A few that are none are caught with them; the other parser reads any.
_FIRST, _SECOND = rb"u[dD][89abAB][0-9a-fA-F]{2}", rb"u[dD][c-fC-F][0-9a-fA-F]{2}"
_HARD = re.compile(
    rb"\d{19}|\\%b(?!\\%b)|(?<!\\%b)\\%b|\\\\%b\\%b" % (_FIRST, _SECOND, _FIRST, _SECOND, _FIRST, _SECOND)
)

Event = tuple[str, str, Any]  # the way to it, what begins or ends or stands there, and its value


python: ModuleType = ijson.backends.python


def is_hard(text: bytes, end: int | None = None) -> bool:
    """Return whether ``text``, up to ``end``, holds what only ijson's parser in Python can read."""
    return _HARD.search(text, 0, len(text) if end is None else end) is not None


def parser_of(text: bytes) -> ModuleType:
    """Return ijson's fast parser, or the one in Python where ``text`` holds what only that one can read."""
    return python if is_hard(text) else ijson


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
