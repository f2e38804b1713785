"""A field of another type than it has is told with its name and place, and costs its own record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.inputs import FILES, element_of, outcome
from tests.fuzz.values import elements, file_of

TEXT, LIST, MAP, NUMBER = (str,), (list,), (dict,), (int, float)
PARTS, TIME = (*TEXT, *LIST), (*TEXT, *NUMBER)
VALUES: list[Any] = ["text", 3, 1.5, True, [], {}]
# Of a file's first element: where a field is, and of what types it may be.
TYPED: dict[str, dict[str, tuple[type, ...]]] = {
    "pages.jsonl": {
        **dict.fromkeys(("user_id", "user_input", "agent_response", "assistant_id", "page_id"), TEXT),
        "metadata": MAP,
        "timestamp": TIME,
    },
    "chats.jsonl": {
        "user_id": TEXT,
        "metadata": MAP,
        "messages": LIST,
        "messages/1/role": TEXT,
        "messages/1/content": PARTS,
        "messages/1/timestamp": TIME,
    },
    "sharegpt.json": {"conversations": LIST, "conversations/1/from": TEXT},
    "chatgpt.json": {
        **dict.fromkeys(("title", "conversation_id", "current_node", "mapping/n4/parent"), TEXT),
        "create_time": TIME,
        "mapping": MAP,
        **dict.fromkeys(("mapping/n3/message", "mapping/n3/message/author", "mapping/n3/message/content"), MAP),
        "mapping/n3/message/metadata": MAP,
        **dict.fromkeys(("mapping/n3/message/author/role", "mapping/n3/message/content/content_type"), TEXT),
        "mapping/n3/message/content/parts": PARTS,
        "mapping/n3/message/create_time": TIME,
    },
    "claude.json": {
        **dict.fromkeys(("uuid", "name", "chat_messages/0/sender", "chat_messages/0/text"), TEXT),
        **dict.fromkeys(("chat_messages", "chat_messages/0/attachments", "chat_messages/0/files"), LIST),
        "chat_messages/1/content": PARTS,
        "chat_messages/0/created_at": TIME,
    },
    "talk.json": {
        **dict.fromkeys(("sample_id", "conversation/speaker_a", "conversation/session_1_date_time"), TEXT),
        "conversation": MAP,
        "conversation/session_1": LIST,
        **dict.fromkeys((f"conversation/session_1/0/{field}" for field in ("speaker", "dia_id", "text")), TEXT),
        "conversation/session_1/3/blip_caption": TEXT,
    },
    "memories-list.json": {**dict.fromkeys(("id", "memory", "user_id"), TEXT), "metadata": MAP, "created_at": TIME},
    "left-out.jsonl": {"format": TEXT, "raw": (*TEXT, *MAP)},
}


def allowed(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


@pytest.mark.parametrize("name", TYPED)
def test_a_field_of_another_type_is_named(tmp_path: Path, name: str) -> None:
    rest = [
        record for record in outcome(tmp_path / "input", file_of(name, elements(name))).records if element_of(record)
    ]
    for way, types in TYPED[name].items():
        *steps, last = way.split("/")
        for value in (value for value in VALUES if not allowed(value, types)):
            found = elements(name)
            holder: Any = found[0]
            for step in steps:
                holder = holder[int(step) if isinstance(holder, list) else step]
            holder[last] = value
            read = outcome(tmp_path / "input", file_of(name, found), FILES[name])
            (error,) = read.errors
            assert error.field == last, way
            assert element_of(error) == 0
            assert [record[1:5] for record in read.records] == [record[1:5] for record in rest], way
