"""Checks of callers' arguments: what can't be taken is an InputError that names it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from datetime import UTC, datetime
from typing import Any

from mos_pipeline.errors import InputError
from mos_pipeline.memory.moments import moment
from mos_pipeline.messages import Page, PageRecord, SourceMark, decode, encode

__all__ = [
    "checked_arguments",
    "checked_count",
    "checked_id",
    "checked_metadata",
    "checked_moment",
    "checked_record",
    "checked_seconds",
    "checked_source",
    "checked_text",
    "checked_timestamp",
    "checked_where",
]

PAGE_FIELDS = frozenset(f.name for f in dataclass_fields(Page))
ADD_FIELDS = PAGE_FIELDS | {"source"}


def checked_id(name: str, value: object) -> str:
    """Return ``value`` if it can be an id: a string that is not empty."""
    if type(value) is not str or not value:
        raise InputError(f"{name} must be a string that is not empty, found {value!r}")
    return value


def checked_text(name: str, value: object) -> str:
    """Return ``value`` if it is a string."""
    if type(value) is not str:
        raise InputError(f"{name} must be a string, found {type(value).__name__}")
    return value


def checked_timestamp(value: object) -> str:
    """Return a page's timestamp as text; for None the present moment: local time, with the zone that makes it one."""
    if value is None:
        return time.strftime("%Y-%m-%d %H:%M:%S%z")
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return checked_text("timestamp", value)


def checked_metadata(value: object, name: str = "metadata") -> dict[str, Any] | None:
    """Return metadata, or what they are to hold (``name`` tells), as a dict, or None."""
    if value is None:
        return None
    # A dict first: asking an abstract class costs microseconds where its code is not in the processor's cache.
    if (type(value) is dict or isinstance(value, Mapping)) and set(map(type, value)) <= {str}:
        return value if type(value) is dict else dict(value)
    raise InputError(f"{name} must be a mapping with string keys, found {value!r:.200}")


def checked_where(value: object) -> dict[str, Any] | None:
    """Return what metadata are to hold, as it would be stored, tuples as lists; or None."""
    wanted = checked_metadata(value, "where")
    try:
        stored: dict[str, Any] | None = decode(encode(wanted))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"where asks for what no metadata can hold ({error}), found {value!r:.200}") from None
    return stored


def checked_source(value: object) -> SourceMark | None:
    """Return ``value`` if it is a source mark, or None."""
    if value is None:
        return None
    if type(value) is SourceMark and type(value.digest) is bytes and type(value.ordinal) is int and value.ordinal >= 0:
        return value
    raise InputError(f"source must be a SourceMark of bytes and a whole number of at least 0, found {value!r}")


def checked_record(
    user_id: object,
    user_input: object,
    agent_response: object,
    assistant_id: object,
    timestamp: object = None,
    metadata: object = None,
    page_id: object = None,
    source: object = None,
) -> PageRecord:
    """Return the arguments of ``add`` as the record of a page."""
    return PageRecord(
        checked_id("user_id", user_id),
        checked_id("assistant_id", assistant_id),
        checked_text("user_input", user_input),
        checked_text("agent_response", agent_response),
        checked_timestamp(timestamp),
        checked_metadata(metadata),
        None if page_id is None else checked_id("page_id", page_id),
        checked_source(source),
    )


def checked_arguments(item: Mapping[str, Any] | Page) -> dict[str, Any]:
    """Return a page, or a mapping with the names of ``add``'s arguments, as those arguments."""
    if isinstance(item, Page):
        return {name: getattr(item, name) for name in PAGE_FIELDS}
    if not isinstance(item, Mapping):
        raise InputError(f"expected a Page or a mapping with add's arguments, found {type(item).__name__}")
    unknown = item.keys() - ADD_FIELDS
    missing = {"user_id", "user_input", "agent_response"} - item.keys()
    if unknown or missing:
        raise InputError(f"unknown fields {sorted(unknown)}, missing fields {sorted(missing)}")
    return dict(item)


def checked_count(name: str, value: object, low: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"{name} must be a whole number of at least {low}, found {value!r:.100}")
    return value


def checked_seconds(name: str, value: object) -> float:
    """Return ``value`` if it is a number of seconds; below 0 counts as 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:  # noqa: PLR0124 - not a number
        raise InputError(f"{name} must be a number of seconds, found {value!r:.100}")
    return max(0.0, float(value))


def checked_moment(name: str, value: object) -> datetime | None:
    """Return a moment with its zone, UTC where it names none; None for None."""
    if value is None:
        return None
    found = value if isinstance(value, datetime) else moment(checked_text(name, value))
    if found is None:
        raise InputError(f"{name} must be a datetime or ISO 8601 text (2026-03-01 10:00:00), found {value!r:.100}")
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
