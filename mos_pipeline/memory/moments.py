"""Timestamps as moments. They are data, given by callers: what can't be read is no moment, and no error."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["moment"]


def moment(timestamp: str) -> datetime | None:
    """Return the moment that an ISO 8601 text names (UTC where it names no zone), or None where it is something else.

    ``2023-05-08 13:56:00``, ``2023-05-08T13:56:00+02:00`` and ``2023-05-08`` are such texts.
    """
    try:
        found = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
