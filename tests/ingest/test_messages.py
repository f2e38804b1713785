from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.ingest import Reading, SourceFile, Stream
from tests.ingest.common import errors, items, records, said, written


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def talk(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(turns), **more}


TALK = talk(turn("user", "hello"), turn("assistant", "hi"), turn("user", "bye"), turn("assistant", "ciao"), id="t1")
SAID = [("hello", "hi"), ("bye", "ciao")]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (json.dumps(TALK), True),
        (json.dumps(TALK, indent=2), False),
        (json.dumps(TALK, indent=2).replace(": [", ":\n["), False),
        (f"\n\n{json.dumps(TALK)}\n", True),
        (json.dumps([TALK]), False),
        (json.dumps([TALK], indent=1), False),
        (json.dumps(TALK | {"title": "long " * 20_000}), True),
    ],
)
def test_one_conversation_in_a_file_is_read_in_every_layout(tmp_path: Path, text: str, lines: bool) -> None:
    path = written(tmp_path, text)
    for name in ("auto", "messages"):
        source = SourceFile.of(Stream(path), name)
        assert (source.format, source.lines) == ("messages", lines)
        assert said(records(path, name)) == SAID


def test_many_conversations_are_an_array_or_one_a_line(tmp_path: Path) -> None:
    other = talk(turn("user", "three"), id="t2", user_id="ben")
    for path in (written(tmp_path, json.dumps([TALK, other]), "a"), written(tmp_path, [TALK, other], "b")):
        found = records(path)
        assert said(found) == [*SAID, ("three", "")]
        assert [record.user_id for record in found] == ["u", "u", "ben"]
        assert [(record.metadata or {})["session"] for record in found] == ["t1", "t1", "t2"]


def test_sharegpt_is_read(tmp_path: Path) -> None:
    turns = [("system", "Be kind."), ("human", "hello"), ("gpt", "hi"), ("human", "bye"), ("gpt", "ciao")]
    data = {"id": "x", "conversations": [{"from": speaker, "value": text} for speaker, text in turns]}
    found = records(written(tmp_path, [data]))
    assert said(found) == SAID
    assert [record.metadata for record in found] == [{"session": "x", "system": "Be kind."}, {"session": "x"}]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("ua", [("0", "1")]),
        ("uua", [("0", ""), ("1", "2")]),
        ("uaa", [("0", "1\n\n2")]),
        ("au", [("", "0"), ("1", "")]),
        ("aaua", [("", "0\n\n1"), ("2", "3")]),
        ("u", [("0", "")]),
        ("ustta", [("0", "4")]),
        ("", []),
        ("s", []),
    ],
)
def test_no_turn_is_lost_and_a_side_may_be_empty(tmp_path: Path, roles: str, expected: list[tuple[str, str]]) -> None:
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    data = talk(*(turn(names[role], str(number)) for number, role in enumerate(roles)))
    assert said(records(written(tmp_path, [data]))) == expected


def test_what_is_left_out_on_purpose_is_counted(tmp_path: Path) -> None:
    data = [talk(turn("user", "a"), turn("tool", "x"), turn("function", "y")), talk(turn("system", "s"))]
    tally = Counter[str]()
    list(SourceFile.of(Stream(written(tmp_path, data))).items(Reading(user="u", tally=tally)))
    assert tally == {"messages of tools": 2, "conversations without turns": 1}


def test_parts_that_are_text_are_joined_and_others_are_counted_and_named(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:…"}}
    data = talk(
        turn("user", [{"type": "text", "text": "look"}, image, image, "here"]),
        turn("assistant", None, tool_calls=[{"id": "1"}]),
        turn("assistant", "a cat"),
        turn("user", [image]),
    )
    first, second = records(written(tmp_path, [data]))
    assert said([first, second]) == [("look\nhere", "\n\na cat"), ("", "")]
    assert (first.metadata or {})["other_parts"] == {"image_url": 2, "tool_call": 1}
    assert (second.metadata or {})["other_parts"] == {"image_url": 1}


def test_times_titles_and_metadata_are_kept(tmp_path: Path) -> None:
    data = talk(
        turn("system", "one"),
        turn("system", "two"),
        turn("user", "a", timestamp="2026-01-01"),
        turn("assistant", "b", timestamp="2026-01-02"),
        turn("user", "c", created_at=1_767_312_000),
        title="Cats",
        metadata={"mood": "good"},
        conversation_id="k",
    )
    first, second = records(written(tmp_path, [data]))
    assert (first.timestamp, second.timestamp) == ("2026-01-01", "2026-01-02 00:00:00+00:00")
    assert first.metadata == {"mood": "good", "title": "Cats", "session": "k", "system": "one\n\ntwo"}
    assert second.metadata == {"mood": "good", "title": "Cats", "session": "k"}


def test_conversations_without_an_id_are_sittings_of_their_own(tmp_path: Path) -> None:
    data = [talk(turn("user", "a"), turn("user", "b")), talk(turn("user", "c"))]
    for path in (written(tmp_path, data, "lines"), written(tmp_path, json.dumps(data), "array")):
        one, same, other = [(record.metadata or {})["sitting"] for record in records(path, sitting_key="sitting")]
        assert one == same != other


def test_the_user_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    data = [talk(turn("user", "a"), customer={"id": name}) for name in ("x", 7, None)]
    path = written(tmp_path, data)
    assert [record.user_id for record in records(path, user_field="customer.id")] == ["x", "7", "u"]
    assert errors(path, user_field="customer") == [
        f"line {line}: customer must be a string or a whole number, found an object" for line in (1, 2, 3)
    ]
    assert "--user" in errors(path, user=None)[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"messages": "x"}, "messages must be a list, found a string"),
        ({"message": []}, "messages is missing"),
        (talk(turn("user", 3)), "message 0: content must be a string or a list of parts, found a number"),
        (talk(turn("user", [3])), "message 0: content, part 0 must be a string or an object, found a number"),
        (talk(turn("wizard", "x")), "message 0: role is 'wizard', expected user"),
        (talk({"content": "x"}), "message 0: role is missing"),
        (talk({"role": "user"}), "message 0: content is missing"),
        (talk(turn("user", "x"), "y"), "message 1: expected an object with role and content, found a string"),  # type: ignore[arg-type]
        (talk(turn("user", "x", timestamp=[])), "timestamp must be a string or a number, found a list"),
        (talk(metadata={"n": 2**70}), "metadata can't be stored"),
    ],
)
def test_what_is_wrong_is_named_and_the_next_conversation_is_read(tmp_path: Path, data: Any, reason: str) -> None:
    lines, array = written(tmp_path, [TALK, data, TALK], "a"), written(tmp_path, json.dumps([TALK, data, TALK]), "b")
    for path, place in ((lines, "line 2"), (array, "conversation 1")):
        (error,) = errors(path, "messages")
        assert error.startswith(place)
        assert reason in error
        assert len(items(path, "messages")) == 5
