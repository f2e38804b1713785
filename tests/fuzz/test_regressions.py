"""Files that were once read wrongly, or might easily be: what they hold, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.common import CORPUS
from tests.fuzz.inputs import outcome

FOLDER = CORPUS / "regressions"
# Each with its format, what users say in it, and what is told, without the file's name.
FILES: dict[str, tuple[str, list[str], list[str]]] = {
    "role-of-another-type.json": (  # was a TypeError
        "chatgpt",
        ["Hi"],
        [
            "conversation 0, node n: role must be a string, found a list",
            "conversation 1, node n: content_type must be a string, found an object",
        ],
    ),
    "results-without-a-list.json": (  # was read as nothing, and nobody told
        "mem0",
        [],
        ["results is missing, or no list; is it another format?"],
    ),
    "sessions-with-noughts.json": (  # were left out, or another one read twice; as were those of a very large number
        "locomo",
        ["first", "second", "third"],
        ["conversation 1 (s): session_1234567890 has a number of more than 9 digits"],
    ),
    "utf-8-breaks-off.json": (  # cost all elements of its chunk, where half a pair of surrogates stood anywhere
        "mem0",
        ["half \ud83d", "whole"],
        ["not UTF-8 at byte 63 of its text; convert the file"],
    ),
    "bytes-behind-the-end.json": ("mem0", ["whole"], ["not UTF-8 at byte 22 of its text; convert the file"]),
    "looks-like-a-pair.json": ("mem0", ["a \\ud83d\ude00", "b"], []),  # was refused as no JSON
    "mark-before-a-left-out-line.jsonl": ("quarantine", ["mended"], []),  # could not be read, whatever was mended
    "hard-before-the-format-is-told.jsonl": ("auto", ["mended"], []),  # was taken for jsonl
    "left-out-of-a-quarantine.jsonl": ("quarantine", ["mended"], []),  # likewise
}


def test_every_file_has_its_meaning() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_what_was_read_wrongly_once(tmp_path: Path, name: str) -> None:
    format_, said, told = FILES[name]
    path = tmp_path / "input"
    found = outcome(path, (FOLDER / name).read_bytes(), format_)
    assert [record.user_input for record in found.records] == said
    errors = [*found.errors, *([found.end] if found.end else [])]
    assert [str(error).removeprefix(str(path))[2:] for error in errors] == told
