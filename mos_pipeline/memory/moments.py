"""Timestamps as moments. They are data, given by callers: what can't be read is no moment, and no error."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

__all__ = ["epoch_moment", "moment"]

MILLISECONDS = 1e11  # from here on a number can't be seconds: they would lie beyond the year 5138
LONGEST = 64
REMEMBERED = 64  # a page's is asked for more than once

# The day of the week may be missing, as may the seconds.
_MAIL = re.compile(
    r"([A-Za-z]{3},\s*)?\d{1,2}\s+[A-Za-z]{3}\s+\d{4}\s+\d{1,2}:\d{2}(:\d{2})?\s+([+-]\d{4}|[A-Za-z]{1,4})"
)
_NUMBER = re.compile(r"\d{9,14}(\.\d+)?", re.ASCII)
_SLASHED = re.compile(r"(\d{4})/(\d{2})/(\d{2})((?:[ T].*)?)", re.ASCII | re.DOTALL)


@lru_cache(maxsize=REMEMBERED)
def moment(timestamp: str) -> datetime | None:
    """Return the moment that a text names (UTC where it names no zone), or None where it is something else.

    Such texts are ISO 8601 (``2023-05-08 13:56:00``, ``2023-05-08T13:56:00.5+02:00``, ``2023-05-08T13:56Z``,
    ``2023-05-08``), the same with slashes or ``UTC`` behind it, the dates of mails (RFC 2822:
    ``Mon, 8 May 2023 13:56:00 +0200``), and seconds or milliseconds since 1970 (9 to 14 digits).
    """
    if (
        len(timestamp) > 8 and timestamp[:9].isdigit()
    ):  # before ISO 8601, which would read 13 digits as a day and a time
        return epoch_moment(float(timestamp)) if _NUMBER.fullmatch(timestamp) else None
    try:
        found = datetime.fromisoformat(timestamp)
    except ValueError:
        other = _otherwise(timestamp) if len(timestamp) <= LONGEST else None
        if other is None:
            return None
        found = other
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def epoch_moment(number: float) -> datetime | None:
    """Return the moment so many seconds, or milliseconds, after 1970; None where the calendar has no such moment."""
    try:
        seconds = number / 1000 if abs(number) >= MILLISECONDS else number
        return datetime.fromtimestamp(seconds, UTC) if math.isfinite(seconds) else None
    except (ValueError, OverflowError, OSError):
        return None


def _otherwise(timestamp: str) -> datetime | None:
    text = timestamp.strip()
    try:
        if _MAIL.fullmatch(text):
            return parsedate_to_datetime(text)
        if slashed := _SLASHED.fullmatch(text):
            text = "-".join(slashed.group(1, 2, 3)) + slashed[4]
        elif text == timestamp and not text.endswith(("UTC", "GMT")):
            return None
        return datetime.fromisoformat(text.removesuffix("UTC").removesuffix("GMT").rstrip())
    except (ValueError, OverflowError):
        return None
