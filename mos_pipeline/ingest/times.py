"""Timestamps of files: text is kept as it is, a number is the time since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mos_pipeline.ingest.records import Spot, named
from mos_pipeline.memory.moments import epoch_moment

__all__ = ["timestamp_of"]


def timestamp_of(value: Any, spot: Spot, name: str = "timestamp") -> str | None:
    """Return a timestamp as text, or None for None.

    A number counts as seconds since 1970, from 100,000,000,000 on as milliseconds; it becomes ISO 8601 in UTC, or stays
    the number, as text, where it is no time of the calendar.

    Raises:
        RecordError: it is neither text nor a number.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise spot.error(f"must be a string or a number, found {named(value)}", name)
    found = epoch_moment(value)
    return str(value) if found is None else _text(found)


def _text(found: datetime) -> str:
    return found.astimezone(UTC).isoformat(sep=" ")
