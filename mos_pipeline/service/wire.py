"""Answers as plain data for msgpack, and back into what the caller expects: no name of a type crosses the socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["as_plain", "from_plain"]


def as_plain(value: Any) -> Any:
    """Return ``value`` with its dataclasses as maps and moments as text.

    It goes no deeper than dataclasses lie: what is in a page's metadata is plain already, and may be nested deeply.
    """
    if _is_instance(value):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _as_item(inner) for key, inner in value.items()}
    return [_as_item(inner) for inner in value] if isinstance(value, list | tuple) else _as_item(value)


def _as_item(value: Any) -> Any:
    if _is_instance(value):
        return as_plain(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return dict(value) if isinstance(value, Mapping) else value


def _is_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


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
