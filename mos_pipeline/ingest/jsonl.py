"""JSON Lines: one page a line, as an object.

    {"user_id": "u", "user_input": "…", "agent_response": "…",
     "assistant_id": "…", "timestamp": "YYYY-MM-DD HH:MM:SS", "metadata": {…}, "page_id": "…"}

The first three are required (``user_id`` unless the caller gives one), null counts as absent. Blank lines are skipped.
A timestamp may be a number, too: seconds, or milliseconds, since 1970.
"""

from __future__ import annotations

import difflib
from typing import Any

from mos_pipeline.ingest.records import Draft, Reading, Spot, checked_metadata, field_of, user_of
from mos_pipeline.ingest.times import timestamp_of

__all__ = ["page_of_line"]

_TEXTS = ("user_id", "user_input", "agent_response", "assistant_id", "page_id")
_TYPES = {str, type(None)}
_KNOWN = frozenset((*_TEXTS, "timestamp", "metadata"))


def page_of_line(data: dict[str, Any], spot: Spot, reading: Reading, _position: int = 0) -> list[Draft]:
    """Return the page that an object holds.

    Raises:
        RecordError: naming the field and what is wrong with it.
    """
    _check_names(data, reading, spot)
    texts = [data.get(name) for name in _TEXTS]
    if not set(map(type, texts)) <= _TYPES:
        texts = [field_of(data, name, str, spot) for name in _TEXTS]  # which tells
    user_id, said, answered, assistant_id, page_id = texts
    user_id = user_of(data, user_id, reading, spot, name="user_id")
    if said is None or answered is None:
        name = "user_input" if said is None else "agent_response"
        raise spot.error("is missing; an empty side is written as an empty string", name)
    if assistant_id == "" or page_id == "":
        name = "assistant_id" if assistant_id == "" else "page_id"
        raise spot.error("is empty; leave it out, or give it a value", name)
    timestamp = timestamp_of(data.get("timestamp"), spot)
    metadata = checked_metadata(field_of(data, "metadata", dict, spot), spot)
    return [Draft(user_id, assistant_id, said, answered, timestamp, metadata, page_id)]


def _check_names(data: dict[str, Any], reading: Reading, spot: Spot) -> None:
    if data.keys() <= _KNOWN:
        return
    unknown = sorted(name[:64] for name in data.keys() - _KNOWN if name != reading.user_field.partition(".")[0])
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(_KNOWN), n=1, cutoff=0.0)[0]
        raise spot.error(f"unknown field {unknown[0]!r}; the nearest known one is {near!r}; extras go into metadata")
