from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.errors import InputError
from mos_pipeline.ingest import FORMATS, read_source

PAGE = {"user_id": "u", "user_input": "a", "agent_response": "b"}
TALK = {
    "sample_id": "talk",
    "conversation": {
        "speaker_a": "Ada",
        "speaker_b": "Ben",
        "session_1": [{"speaker": "Ada", "dia_id": "D1:1", "text": "hello"}],
    },
}


def written(folder: Path, text: str) -> Path:
    path = folder / "input"
    path.write_text(text)
    return path


def test_the_known_formats() -> None:
    assert FORMATS == ("auto", "jsonl", "messages", "chatgpt", "claude", "locomo", "mem0", "quarantine")


@pytest.mark.parametrize(
    ("text", "users"),
    [
        (json.dumps(PAGE), ["u"]),
        ("\n\n" + json.dumps(PAGE), ["u"]),
        ("", []),
        (json.dumps([TALK]), ["talk"]),
        (json.dumps([TALK], indent=4), ["talk"]),
        (json.dumps([{"qa": ["long " * 50_000], **TALK}]), ["talk"]),
    ],
)
def test_the_format_is_told_by_the_beginning(tmp_path: Path, text: str, users: list[str]) -> None:
    path = written(tmp_path, text)
    assert [record.user_id for record in read_source(path)] == users
    assert [record.user_id for record in read_source(str(path), "auto")] == users


@pytest.mark.parametrize(
    "text", ["user,text\n", "[]", "[1, 2]", '[{"role": "user"}]', "[", '"text"', "\x00\x01", "[{x"]
)
def test_what_fits_no_format_is_refused_with_the_known_ones(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"known are jsonl .* and mem0"):
        read_source(written(tmp_path, text))


def test_an_unknown_format_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format 'csv'; known are auto, jsonl, messages, chatgpt"):
        read_source(tmp_path / "gone", "csv")


def test_an_empty_user_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="user is empty"):
        read_source(tmp_path / "gone", "jsonl", "")


def test_leaving_off_closes_the_file(tmp_path: Path) -> None:
    """An open file would warn when it is collected, and warnings are errors."""
    many: list[Any] = [PAGE] * 3
    records = read_source(written(tmp_path, "\n".join(map(json.dumps, many))))
    next(records)
    del records
