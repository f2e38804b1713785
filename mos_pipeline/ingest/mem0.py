"""mem0's memories: a list of them, or ``{"results": […]}``, each a sentence that is known of a user.

``memory`` (or ``text``), ``user_id`` and ``created_at``; ``metadata`` stay, other fields go into them under ``mem0``. A
memory becomes a page that is also a fact of ``knowledge(user)``, word for word; its ``id`` is the page's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mos_pipeline.ingest.records import Draft, Reading, Spot, checked_metadata, field_of, user_of
from mos_pipeline.ingest.times import timestamp_of
from mos_pipeline.messages import OF_USER, STATES

__all__ = ["page_of_memory"]

_TAKEN = {"id", "memory", "text", "user_id", "created_at", "metadata"}


def page_of_memory(data: dict[str, Any], spot: Spot, reading: Reading, _position: int) -> Iterator[Draft]:
    """Yield the page of a memory.

    Raises:
        RecordError: naming the field and what is wrong with it.
    """
    found = (field_of(data, name, str, spot) for name in ("memory", "text"))
    text = next((value for value in found if value is not None), None)
    if not text or text.isspace():
        raise spot.error("is missing" if text is None else "is empty", "memory")
    user_id = user_of(data, field_of(data, "user_id", str, spot), reading, spot, name="user_id")
    rest = {name: value for name, value in data.items() if name not in _TAKEN and value is not None}
    own = field_of(data, "metadata", dict, spot) or {}
    metadata = checked_metadata({**own, **({"mem0": rest} if rest else {}), STATES: OF_USER}, spot)
    page_id = field_of(data, "id", str, spot) or None
    yield Draft(user_id, None, text, "", timestamp_of(data.get("created_at"), spot, "created_at"), metadata, page_id)
