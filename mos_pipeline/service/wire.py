"""Answers as plain data for msgpack, and back into what the caller expects: no name of a type crosses the socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["as_plain", "from_plain"]


def as_plain(value: Any) -> Any:
    """Return ``value`` with its dataclasses as maps, paths and moments as text, tuples and sets as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: as_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: Any, data: Any) -> Any:
    """Return what ``as_plain`` was given, a ``kind``: a dataclass, or list, tuple, dict or optional of such.

    Raises:
        TypeError, KeyError, AttributeError: it was something else.
    """
    inside = get_args(kind)
    if data is None or kind is Any:
        return data
    match get_origin(kind):
        case origin if origin is Union or origin is UnionType:
            return from_plain(next(one for one in inside if one is not NoneType), data)
        case origin if origin is list:
            return [from_plain(inside[0], item) for item in data]
        case origin if origin is tuple:
            return tuple(from_plain(inside[0], item) for item in data)
        case origin if origin is dict:
            return {key: from_plain(inside[1], item) for key, item in data.items()}
    return _instance(kind, data) if dataclasses.is_dataclass(kind) else data


def _instance(kind: Any, data: dict[str, Any]) -> Any:
    hints = _hints(kind)
    return kind(**{name: from_plain(hints[name], value) for name, value in data.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
