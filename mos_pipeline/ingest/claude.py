"""Claude's export, ``conversations.json``: an array of conversations with ``chat_messages``.

A message has ``sender`` (human or assistant), ``text``, or ``content`` in parts, and ``created_at``. A page's metadata
name the conversation as its sitting, and its title.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mos_pipeline.ingest.content import text_and_others
from mos_pipeline.ingest.pairing import Turn, pages_of_turns
from mos_pipeline.ingest.records import Draft, Reading, Spot, field_of, named, user_of
from mos_pipeline.ingest.times import timestamp_of

__all__ = ["pages_of_claude"]

_BESIDE = {"attachments": "attachment", "files": "file"}


def pages_of_claude(data: dict[str, Any], spot: Spot, reading: Reading, position: int) -> Iterator[Draft]:
    """Yield the pages of a conversation.

    Raises:
        RecordError: naming the message, the field and what is wrong.
    """
    user_id = user_of(data, None, reading, spot)
    messages = field_of(data, "chat_messages", list, spot)
    if messages is None:
        raise spot.error("is missing; is it another format?", "chat_messages")
    title = field_of(data, "name", str, spot)
    sitting = field_of(data, "uuid", str, spot) or position
    metadata = {reading.sitting_key: sitting, **({"title": title} if title else {})}
    turns = [_turn(message, spot.within(f"message {number}")) for number, message in enumerate(messages)]
    told = [turn for turn in turns if turn.text or turn.other]
    reading.tally["empty messages"] += len(turns) - len(told)
    if not told:
        reading.tally["conversations without turns"] += 1
    yield from pages_of_turns(told, user_id, metadata, [])


def _turn(message: Any, spot: Spot) -> Turn:
    if not isinstance(message, dict):
        raise spot.error(f"expected an object with sender and text, found {named(message)}")
    sender = field_of(message, "sender", str, spot)
    if sender not in {"human", "assistant"}:
        raise spot.error(
            "is missing" if sender is None else f"is {sender[:64]!r}, expected human or assistant", "sender"
        )
    text = field_of(message, "text", str, spot) or ""
    in_parts, other = text_and_others(message.get("content"), spot)
    for name, kind in _BESIDE.items():
        if beside := field_of(message, name, list, spot):
            other = {**other, kind: len(beside)}
    return Turn(sender == "human", text or in_parts, timestamp_of(message.get("created_at"), spot, "created_at"), other)
