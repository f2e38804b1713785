"""ChatGPT's export, ``conversations.json``: an array of conversations, each a tree of messages.

``mapping`` holds the nodes, ``{"message", "parent", "children"}``; an answer that was asked for again, or a question
that was written anew, is a branch. What counts is the current branch: ``current_node`` and the parents above it. A
page's metadata name the conversation as its sitting, and its title.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mos_pipeline.ingest.content import text_and_others
from mos_pipeline.ingest.pairing import Turn, pages_of_turns
from mos_pipeline.ingest.records import Draft, Reading, Spot, field_of, named, user_of
from mos_pipeline.ingest.times import timestamp_of

__all__ = ["pages_of_chatgpt"]

_TALK = {"text", "multimodal_text"}


def pages_of_chatgpt(data: dict[str, Any], spot: Spot, reading: Reading, position: int) -> Iterator[Draft]:
    """Yield the pages of a conversation.

    Raises:
        RecordError: naming the node, the field and what is wrong.
    """
    user_id = user_of(data, None, reading, spot)
    ids = (field_of(data, name, str, spot) for name in ("conversation_id", "id"))
    sitting = next((value for value in ids if value), position)
    title = field_of(data, "title", str, spot)
    metadata = {reading.sitting_key: sitting, **({"title": title} if title else {})}
    started = timestamp_of(data.get("create_time"), spot, "create_time")
    system = list[str]()
    turns = list(_turns(_branch(data, spot), system, spot, reading))
    if not turns:
        reading.tally["conversations without turns"] += 1
    for draft in pages_of_turns(turns, user_id, metadata, system):
        yield draft._replace(timestamp=draft.timestamp or started)


def _branch(data: dict[str, Any], spot: Spot) -> list[tuple[str, dict[str, Any]]]:
    """Return the nodes of the current branch, from its root on."""
    mapping, at = field_of(data, "mapping", dict, spot), field_of(data, "current_node", str, spot)
    if mapping is None or at is None:
        raise spot.error("is missing; is it another format?", "mapping" if mapping is None else "current_node")
    branch = dict[str, dict[str, Any]]()
    while at is not None:
        where, node = spot.within(f"node {at[:64]}"), mapping.get(at)
        if not isinstance(node, dict):
            raise where.error(
                "is missing in the mapping" if node is None else f"must be an object, found {named(node)}"
            )
        if at in branch:
            raise where.error("is its own ancestor; the tree can't be followed")
        branch[at] = node
        at = field_of(node, "parent", str, where)
    return list(reversed(branch.items()))


def _turns(branch: list[tuple[str, dict[str, Any]]], system: list[str], spot: Spot, reading: Reading) -> Iterator[Turn]:
    for node_id, node in branch:
        where = spot.within(f"node {node_id[:64]}")
        message = field_of(node, "message", dict, where)
        if message is None:
            continue
        role = field_of(field_of(message, "author", dict, where) or {}, "role", str, where)
        content = field_of(message, "content", dict, where) or {}
        kind = field_of(content, "content_type", str, where)
        left_out = _why_left_out(role, kind, field_of(message, "metadata", dict, where) or {})
        text, other = "", dict[str, int]()
        if left_out is None or role == "system":
            text, other = text_and_others(content.get("parts"), where, "parts")
        if left_out is not None:
            reading.tally[left_out] += 1
            system += [text] if text else []
        elif text or other:
            yield Turn(role == "user", text, timestamp_of(message.get("create_time"), where, "create_time"), other)
        else:
            reading.tally["empty messages"] += 1


def _why_left_out(role: str | None, kind: str | None, metadata: dict[str, Any]) -> str | None:
    """Return what a message counts as that is no turn of the two; None where it is one."""
    if role not in {"user", "assistant"}:
        return "messages of the system" if role == "system" else "messages of tools"
    if metadata.get("is_visually_hidden_from_conversation"):
        return "hidden messages"
    return None if kind in _TALK else f"messages of type {str(kind)[:64]}"
