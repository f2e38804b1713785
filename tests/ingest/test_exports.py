"""What ChatGPT, Claude and mem0 export."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.ingest import Reading, SourceFile, Stream
from mos_pipeline.messages import STATES
from tests.ingest.common import errors, items, records, said, written


def node(parent: str | None, role: str = "", text: Any = "", **more: Any) -> dict[str, Any]:
    """A node of ChatGPT's tree; without a role it has no message."""
    content = more.pop("content", {"content_type": "text", "parts": [text]})
    message = {"author": {"role": role}, "content": content, "metadata": {}, **more} if role else None
    return {"message": message, "parent": parent, "children": []}


def tree(current: str, nodes: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"title": "Trip", "conversation_id": "c1", "mapping": nodes, "current_node": current} | more


BRANCHED = {
    "root": node(None),
    "sys": node("root", "system", ""),
    "q1": node("sys", "user", "Where to?", create_time=1_767_225_600.5),
    "a1-old": node("q1", "assistant", "Rome."),
    "a1": node("q1", "assistant", "Oslo."),
    "q2": node("a1", "user", "When?"),
    "tool": node("q2", "tool", "calendar"),
    "hidden": node("tool", "user", "profile", metadata={"is_visually_hidden_from_conversation": True}),
    "think": node("hidden", "assistant", content={"content_type": "thoughts", "thoughts": []}),
    "empty": node("think", "assistant", ""),
    "a2": node("empty", "assistant", "May."),
}


def read(path: Path, name: str) -> tuple[list[Any], Counter[str]]:
    tally = Counter[str]()
    source = SourceFile.of(Stream(path))
    assert source.format == name
    return list(source.items(Reading(user="u", tally=tally))), tally


def test_chatgpts_current_branch_is_read_and_what_is_no_turn_is_counted(tmp_path: Path) -> None:
    found, tally = read(written(tmp_path, json.dumps([tree("a2", BRANCHED, create_time=1_767_200_000)])), "chatgpt")
    assert said(found) == [("Where to?", "Oslo."), ("When?", "May.")]
    assert [record.metadata for record in found] == [{"session": "c1", "title": "Trip"}] * 2
    assert [record.timestamp for record in found] == ["2026-01-01 00:00:00.500000+00:00", "2025-12-31 16:53:20+00:00"]
    assert tally == {
        "messages of the system": 1,
        "messages of tools": 1,
        "hidden messages": 1,
        "messages of type thoughts": 1,
        "empty messages": 1,
    }


def test_chatgpts_other_branch_and_parts(tmp_path: Path) -> None:
    parts = {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "What is it?"]}
    nodes = BRANCHED | {
        "sys": node("root", "system", "Answer briefly."),
        "q3": node("a1-old", "user", content=parts),
    }
    (first, second), _ = read(written(tmp_path, tree("q3", nodes)), "chatgpt")
    assert said([first, second]) == [("Where to?", "Rome."), ("What is it?", "")]
    assert (first.metadata["system"], second.metadata["other_parts"]) == ("Answer briefly.", {"image_asset_pointer": 1})


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (tree("gone", BRANCHED), "node gone: is missing in the mapping"),
        (tree("a", {"a": node("b", "user", "x"), "b": node("a")}), "node a: is its own ancestor"),
        (tree("q1", BRANCHED) | {"mapping": []}, "mapping must be an object, found a list"),
        (tree("q1", BRANCHED) | {"current_node": None}, "current_node is missing"),
        (tree("a", {"a": []}), "node a: must be an object, found a list"),  # type: ignore[dict-item]
        (tree("a", {"a": node(None, "user", content={"content_type": "text", "parts": 3})}), "node a: parts must be"),
    ],
)
def test_a_broken_tree_is_named_and_the_next_one_is_read(tmp_path: Path, broken: Any, reason: str) -> None:
    path = written(tmp_path, json.dumps([broken, tree("a2", BRANCHED)]))
    (error,) = errors(path, "chatgpt")
    assert error.startswith("conversation 0")
    assert reason in error
    assert len(items(path, "chatgpt")) == 3


def test_a_tree_of_10_000_messages_is_followed(tmp_path: Path) -> None:
    nodes = {str(n): node(str(n - 1) if n else None, ("user", "assistant")[n % 2], f"m{n}") for n in range(10_000)}
    assert len(records(written(tmp_path, json.dumps([tree("9999", nodes)])))) == 5000


def message(sender: str, text: str = "", **more: Any) -> dict[str, Any]:
    return {"uuid": "m", "sender": sender, "text": text, "created_at": "2026-02-01T10:00:00.5Z", **more}


def test_claudes_export_is_read(tmp_path: Path) -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Warm."}, {"type": "tool_use"}]
    talk = {
        "uuid": "k1",
        "name": "Weather",
        "account": {"uuid": "acc"},
        "chat_messages": [
            message("human", "How is it?", attachments=[{"file_name": "a"}], files=[]),
            message("assistant", content=parts),
            message("assistant", ""),
            message("human", "Thanks"),
        ],
    }
    found, tally = read(written(tmp_path, json.dumps([talk])), "claude")
    assert said(found) == [("How is it?", "Warm."), ("Thanks", "")]
    assert found[0].metadata == {
        "session": "k1",
        "title": "Weather",
        "other_parts": {"attachment": 1, "thinking": 1, "tool_use": 1},
    }
    assert found[0].timestamp == "2026-02-01T10:00:00.5Z"
    assert tally == {"empty messages": 1}
    path = tmp_path / "input"
    assert [record.user_id for record in records(path, user_field="account.uuid")] == ["acc"] * 2


def test_a_conversation_without_an_id_is_told(tmp_path: Path) -> None:
    """By what else should the next export's be known as the same?"""
    talk = {"name": "T", "chat_messages": [message("human", "hello")]}
    (error,) = errors(written(tmp_path, json.dumps([talk])))
    assert error.startswith("conversation 0: uuid is missing; give each conversation one")
    nameless = {key: value for key, value in tree("a2", BRANCHED).items() if key != "conversation_id"}
    assert "conversation_id is missing" in errors(written(tmp_path, json.dumps([nameless])))[0]
    assert len(records(written(tmp_path, json.dumps([nameless | {"id": "x"}])))) == 2


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"chat_messages": {}}, "chat_messages must be a list, found an object"),
        ({"chat_messages": [message("robot", "x")]}, "message 0: sender is 'robot', expected human or assistant"),
        ({"chat_messages": [{"text": "x"}]}, "message 0: sender is missing"),
        ({"chat_messages": ["x"]}, "message 0: expected an object with sender and text, found a string"),
        ({"messages": []}, "chat_messages is missing"),
    ],
)
def test_a_broken_conversation_of_claudes_is_named(tmp_path: Path, broken: Any, reason: str) -> None:
    (error,) = errors(written(tmp_path, json.dumps([broken])), "claude")
    assert error == f"conversation 0, {reason}" or reason in error


def test_a_conversation_without_turns_is_counted(tmp_path: Path) -> None:
    talks = json.dumps([{"uuid": "a", "chat_messages": []}])
    assert read(written(tmp_path, talks), "claude") == ([], Counter({"conversations without turns": 1}))


MEMORY = {
    "id": "7d1f",
    "memory": "Likes tea.",
    "user_id": "ann",
    "created_at": "2026-03-01T08:00:00-07:00",
    "updated_at": None,
    "hash": "ab",
    "metadata": {"topic": "drinks"},
}


@pytest.mark.parametrize("data", [[MEMORY], {"results": [MEMORY]}, {"results": [MEMORY], "relations": []}])
def test_mem0s_memories_are_read(tmp_path: Path, data: Any) -> None:
    (found,), _ = read(written(tmp_path, json.dumps(data)), "mem0")
    assert found[:7] == (
        "ann",
        None,
        "Likes tea.",
        "",
        "2026-03-01T08:00:00-07:00",
        {"topic": "drinks", "mem0": {"hash": "ab"}, STATES: "user"},
        "7d1f",
    )


def test_mem0s_memories_have_text_instead_and_a_user_from_outside(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([{"text": "Likes tea.", "user_id": None}, {"memory": "Has a cat."}]))
    assert said(records(path, user="bo")) == [("Likes tea.", ""), ("Has a cat.", "")]
    broken = [{"memory": " "}, {"memory": 3}, {}, "x", {"memory": "x", "user_id": ""}]
    assert errors(written(tmp_path, json.dumps(broken)), "mem0") == [
        "memory 0: memory is empty",
        "memory 1: memory must be a string, found a number",
        "memory 2: memory is missing",
        "memory 3: expected an object, found a string",
        "memory 4: user_id is empty; give every page a user",
    ]


def test_half_pairs_of_surrogates_and_large_numbers_are_kept_in_arrays_too(tmp_path: Path) -> None:
    text = '[{"memory": "cut \\ud83d off", "user_id": "\\udc00", "score": 12345678901234567890}]'
    (record,) = records(written(tmp_path, text))
    assert (record.user_input, record.user_id) == ("cut \ud83d off", "\udc00")
    assert (record.metadata or {})["mem0"]["score"] == 12345678901234567890


def test_an_array_that_breaks_off_has_given_what_comes_before(tmp_path: Path) -> None:
    from mos_pipeline.errors import InputError
    from mos_pipeline.ingest import read_source

    many = json.dumps([{"memory": f"m{n}", "user_id": "u"} for n in range(3000)])
    for content in (many[:-1], many[: len(many) // 2], many[:-100] + "}}", many[:-40].encode() + b'"\xff"'):
        found = []
        with pytest.raises(InputError, match=r"not valid JSON|not UTF-8 at byte [0-9,]+ of"):
            for record in read_source(written(tmp_path, content)):
                found.append(record)  # noqa: PERF402 - it ends with an error
        assert len(found) >= 1495
