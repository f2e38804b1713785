"""Chat messages: ``{"messages": [{"role", "content"}, …]}``; ShareGPT's: ``{"conversations": [{"from", "value"}, …]}``.

One conversation in the file, an array of them, or one a line. ``user_id`` (or ``user``) names the user; ``id`` (or
``conversation_id``) the sitting; a message's ``timestamp`` (``created_at``, ``create_time``) the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mos_pipeline.ingest.content import text_and_others
from mos_pipeline.ingest.pairing import Turn, pages_of_turns
from mos_pipeline.ingest.records import Draft, Reading, Spot, checked_metadata, field_of, named, user_of
from mos_pipeline.ingest.times import timestamp_of

__all__ = ["pages_of_messages"]

_USER = {"user", "human"}
_ASSISTANT = {"assistant", "gpt", "chatgpt", "bing", "bard", "model", "ai", "bot"}
_SYSTEM = {"system", "developer"}
_TOOLS = {"tool", "function", "observation", "function_call"}
_SPEAKERS = ("role", "from")
_TEXTS = ("content", "value")
_TIMES = ("timestamp", "created_at", "create_time")


def pages_of_messages(data: dict[str, Any], spot: Spot, reading: Reading, position: int) -> Iterator[Draft]:
    """Yield the pages of a conversation.

    Raises:
        RecordError: naming the message, the field and what is wrong.
    """
    messages = _first(data, ("messages", "conversations"), list, spot)
    if messages is None:
        raise spot.error("is missing, as is conversations; is it another format?", "messages")
    own = _first(data, ("user_id", "user"), str, spot)
    user_id = user_of(data, own, reading, spot, name="user_id")
    system = list[str]()
    turns = list(_turns(messages, system, spot, reading))
    # A conversation without an id is a sitting all the same: its place tells it from its neighbours.
    sitting = next((data[key] for key in ("id", "conversation_id") if isinstance(data.get(key), str | int)), position)
    title = {"title": data["title"]} if isinstance(data.get("title"), str) else {}
    metadata = field_of(data, "metadata", dict, spot) or {}
    metadata = checked_metadata({**metadata, **title, reading.sitting_key: sitting}, spot) or {}
    if not turns:
        reading.tally["conversations without turns"] += 1
    yield from pages_of_turns(turns, user_id, metadata, system)


def _turns(messages: list[Any], system: list[str], spot: Spot, reading: Reading) -> Iterator[Turn]:
    for number, message in enumerate(messages):
        where = spot.within(f"message {number}")
        if not isinstance(message, dict):
            raise where.error(f"expected an object with role and content, found {named(message)}")
        role = _first(message, _SPEAKERS, str, where)
        if role is None:
            raise where.error("is missing", "role")
        text, other = text_and_others(next((message[key] for key in _TEXTS if key in message), None), where)
        if isinstance(message.get("tool_calls"), list) and message["tool_calls"]:
            other = {**other, "tool_call": len(message["tool_calls"])}
        if role in _SYSTEM:
            system += [text] if text else []
        elif role in _TOOLS:
            reading.tally["messages of tools"] += 1
        elif role in _USER | _ASSISTANT:
            if not any(key in message for key in (*_TEXTS, "tool_calls")):
                raise where.error("is missing", "content")
            time = next((message[key] for key in _TIMES if key in message), None)
            yield Turn(role in _USER, text, timestamp_of(time, where), other)
        else:
            raise where.error(f"is {role[:64]!r}, expected user, assistant, system or tool", "role")


def _first(record: dict[str, Any], names: tuple[str, ...], kind: type, spot: Spot) -> Any:
    """Return the first of the fields that is there."""
    found = (field_of(record, name, kind, spot) for name in names)
    return next((value for value in found if value is not None), None)
