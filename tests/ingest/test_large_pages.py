"""``store.max_page_bytes``, whatever the format: a page above it is refused by name, and memory stays bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest import Reading, SourceFile, SourceRecord, Stream, elements, streams
from tests.cli.common import SETTINGS, Here
from tests.ingest.common import page, written

LIMIT = 1024
CHUNK = 64 << 10  # what ijson reads at once


def tree(text: str) -> dict[str, Any]:
    message = {"author": {"role": "user"}, "content": {"content_type": "text", "parts": [text]}}
    return {"id": f"c{len(text)}", "mapping": {"n": {"parent": None, "message": message}}, "current_node": "n"}


def session(text: str) -> dict[str, Any]:
    turns = [{"speaker": "Ann", "dia_id": "D1:1", "text": text}]
    return {"sample_id": "ann", "conversation": {"speaker_a": "Ann", "speaker_b": "Bo", "session_1": turns}}


ELEMENTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "jsonl": lambda text: page(user_input=text),
    "messages": lambda text: {"messages": [{"role": "user", "content": text}]},
    "chatgpt": tree,
    "claude": lambda text: {"uuid": f"k{len(text)}", "chat_messages": [{"sender": "human", "text": text}]},
    "locomo": session,
    "mem0": lambda text: {"memory": text, "user_id": "u"},
    "quarantine": lambda text: {"reason": "", "source": "", "format": "jsonl", "raw": page(user_input=text)},
}
LINES = {"jsonl", "messages", "quarantine"}
LAYOUTS = [(name, True) for name in sorted(LINES)] + [(name, False) for name in ELEMENTS if name not in LINES]
LAYOUTS += [("messages", False)]


def file_of(folder: Path, name: str, texts: list[str], *, lines: bool) -> Path:
    found = [ELEMENTS[name](text) for text in texts]
    return written(folder, found if lines else json.dumps(found))


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    for setting, value in SETTINGS.items():
        monkeypatch.setenv(setting, value)
    monkeypatch.setenv("MOS_PIPELINE_STORE__MAX_PAGE_BYTES", str(LIMIT))
    return Here(capsys)


@pytest.mark.parametrize(("name", "lines"), LAYOUTS)
def test_a_page_above_the_limit_is_refused_alone(here: Here, tmp_path: Path, name: str, lines: bool) -> None:
    path = file_of(tmp_path, name, ["first", "x" * 2 * LIMIT, "last"], lines=lines)
    options = ("--format", name, "--user", "u", "--on-error", "skip", "--dry-run", "--json")
    assert here("ingest", path, "--store", tmp_path / "store", *options) == ExitCode.LEFT_OUT
    told = json.loads(here.out)
    assert (told["accepted"], told["left_out"]) == (2, 1)
    (note,) = here.err.splitlines()
    assert note.startswith(f"left out: {path}, ")
    assert "line 2" in note if lines else " 1" in note
    assert f"store.max_page_bytes is {LIMIT:,}; split it" in note


@pytest.mark.parametrize(("name", "lines"), LAYOUTS)
@pytest.mark.parametrize("escape", [False, True])  # one of documents' two parsers reads half a pair of surrogates
def test_what_is_too_long_to_be_held_is_refused_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lines: bool, escape: bool
) -> None:
    path = file_of(tmp_path, name, ["first \ud800" if escape else "first", "x" * (1 << 20), "last"], lines=lines)
    fed, available = list[int](), streams.available

    def counted(file: Any, size: int) -> bytes:
        data = available(file, size)
        fed.append(len(data))
        return data

    monkeypatch.setattr(elements, "available", counted)
    found = list[SourceRecord | RecordError]()
    told = ""
    try:
        found.extend(SourceFile.of(Stream(path), name).items(Reading(user="u", max_page_bytes=LIMIT)))
    except InputError as error:
        told = str(error)
    if lines:
        first, wrong, last = found
        told = str(wrong)
        assert isinstance(last, SourceRecord)
        assert last.user_input == "last"
    else:  # where the next one begins can't be told without reading this one
        (first,) = found
        assert sum(fed) <= 6 * LIMIT + 2 * CHUNK
    assert isinstance(first, SourceRecord)
    element = "memory 1" if name == "mem0" else "conversation 1"
    assert told.startswith(f"{path}, {'line 2' if lines else element}: ")
    assert f"longer than {6 * LIMIT:,} bytes, six for each of store.max_page_bytes" in told


def test_a_document_of_one_conversation_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(ELEMENTS["messages"]("x" * (1 << 20)), indent=1))
    with pytest.raises(
        InputError, match=r"conversation: longer than 6,144 bytes, six for each of store\.max_page_bytes"
    ):
        list(SourceFile.of(Stream(path)).items(Reading(user="u", max_page_bytes=LIMIT)))


def test_many_elements_may_take_more_than_one_may(tmp_path: Path) -> None:
    path = file_of(tmp_path, "messages", ["x" * LIMIT] * 500, lines=False)
    assert len(list(SourceFile.of(Stream(path)).items(Reading(user="u", max_page_bytes=LIMIT)))) == 500
