from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.ingest import Reading, SourceRecord, read_source
from mos_pipeline.ingest.records import Draft

LEAST = {"user_id": "u", "user_input": "hello", "agent_response": "hi"}


def write(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "pages.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def line(**changes: Any) -> str:
    return json.dumps({name: value for name, value in (LEAST | changes).items() if value != "absent"})


def read(path: Path, user: str | None = None) -> list[SourceRecord]:
    return list(read_source(path, "jsonl", user))


def test_a_line_with_every_field(tmp_path: Path) -> None:
    full: dict[str, Any] = {
        **LEAST,
        "assistant_id": "a",
        "timestamp": "2024-05-01 10:00:00",
        "metadata": {"mood": ["good", 1, None]},
        "page_id": "p1",
    }
    (record,) = read(write(tmp_path, json.dumps(full)))
    assert record[:7] == Draft(**full)


def test_the_least_a_line_can_hold(tmp_path: Path) -> None:
    (record,) = read(write(tmp_path, line(user_input="", timestamp=None)))
    assert (record.user_input, record.agent_response) == ("", "hi")
    assert (record.assistant_id, record.timestamp, record.metadata, record.page_id) == (None, None, None, None)


def test_blank_lines_are_counted_but_make_no_pages(tmp_path: Path) -> None:
    path = write(tmp_path, "", line(user_input="one"), " \t", line(user_input="two") + "\r", "", "")
    assert [(record.number, record.user_input) for record in read(path)] == [(1, "one"), (3, "two")]


def test_equal_lines_are_pages_each(tmp_path: Path) -> None:
    assert [record.number for record in read(write(tmp_path, line(), line()))] == [0, 1]


def test_the_given_user_stands_in_where_the_line_names_none(tmp_path: Path) -> None:
    path = write(tmp_path, line(user_id="absent"), line(user_id=None), line())
    assert [record.user_id for record in read(path, "default")] == ["default", "default", "u"]


def test_an_empty_file_has_no_pages(tmp_path: Path) -> None:
    assert read(write(tmp_path, "")) == []


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert len(read(write(tmp_path, b"\xef\xbb\xbf" + line().encode()))) == 1


def test_escaped_lone_surrogates_are_kept(tmp_path: Path) -> None:
    assert read(write(tmp_path, line(user_input="\ud800!")))[0].user_input == "\ud800!"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "line 2: not valid JSON at column"),
        ('{"user_id": "u"} {}', "line 2: not valid JSON at column 18: Extra data"),
        ("[1]", "expected an object, found a list"),
        (line(user_input="absent"), "user_input is missing; an empty side is written as an empty string"),
        (line(agent_response=None), "agent_response is missing"),
        (line(user_id="absent"), "user_id is missing; put it into the record, or name a user"),
        (line(user_id=""), "user_id is empty"),
        (line(user_id=7), "user_id must be a string, found a number"),
        (line(timestamp=[]), "timestamp must be a string or a number, found a list"),
        (line(assistant_id=""), "assistant_id is empty"),
        (line(page_id=""), "page_id is empty"),
        (line(page_id=True), "page_id must be a string, found true or false"),
        (line(user_input=["a"]), "user_input must be a string, found a list"),
        (line(metadata="x"), "metadata must be an object, found a string"),
        (line(metadata={"n": 2**70}), "metadata can't be stored"),
        (line(agent_respons="x"), "unknown field 'agent_respons'; the nearest known one is 'agent_response'"),
        (line(**{"q" * 999: 1}), f"unknown field '{'q' * 64}'"),
        ('{"user_id": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"metadata": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        (b'{"user_id": "\xff"}', "not UTF-8 at byte 13 of the line"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, bad: str | bytes, reason: str) -> None:
    path = write(tmp_path, line(), bad, line())
    records = read_source(path, "jsonl")
    assert next(records).number == 0
    with pytest.raises(InputError) as caught:
        next(records)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert reason in str(caught.value)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path,
) -> None:
    reading = Reading(max_page_bytes=len(line()) // 6 + 1)
    assert len(list(read_source(write(tmp_path, line(), line()), reading=reading))) == 2
    with pytest.raises(InputError, match=r"line 2: longer than .* store.max_page_bytes"):
        list(read_source(write(tmp_path, line(), line(user_input="hello, world")), reading=reading))


def test_of_an_endless_line_no_more_is_held_than_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path, "x" * 10_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="line 1: longer than 6,000 bytes"):
            list(read_source(path, "jsonl", reading=Reading(max_page_bytes=1000)))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("gone", "No such file"), ("", "not a regular file"), ("pipe", "not a regular file")):
        with pytest.raises(InputError, match=reason) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
records = st.fixed_dictionaries(
    {"user_id": st.text(min_size=1), "user_input": st.text(), "agent_response": st.text()},
    optional={
        "assistant_id": st.text(min_size=1),
        "timestamp": st.text(),
        "page_id": st.text(min_size=1),
        "metadata": st.dictionaries(st.text(), values, max_size=3),
    },
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(records, max_size=4), ascii_only=st.booleans())
def test_what_was_written_is_read(tmp_path: Path, drawn: list[dict[str, Any]], ascii_only: bool) -> None:
    path = write(tmp_path, *(json.dumps(record, ensure_ascii=ascii_only) for record in drawn))
    optional: dict[str, Any] = dict.fromkeys(("assistant_id", "timestamp", "metadata", "page_id"))
    assert [record[:7] for record in read(path)] == [Draft(**(optional | record)) for record in drawn]
