"""The examples of docs/ingest.md are ingested, and all formats have one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mos_pipeline
from mos_pipeline.ingest import FORMATS, Reading, SourceFile, Stream, read_source
from tests.cli.common import Here, exported
from tests.cli.conftest import here as here_in_process

here = here_in_process
DOCUMENT = Path(mos_pipeline.__file__).parents[1] / "docs" / "ingest.md"
EXAMPLES = re.findall(r"<!-- example: (\w+) -->\n```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
PAGES = {
    "jsonl": [("I adopted a beagle.", "What is its name?"), ("Rex.", "Hello, Rex!")],
    "chatgpt": [("Where to?", "Oslo.")],
    "claude": [("How is it?", "Warm.")],
    "locomo": [("I bought a kayak.", "What colour?")],
    "mem0": [("Likes tea.", "")],
    "quarantine": [("3", "Three?")],
}
MESSAGES = [[("Where is Ghent?", "In Belgium."), ("What is this?", "")], [("Hi", "Hello!")]]


def test_every_format_has_an_example() -> None:
    assert {"auto", *(name for name, _ in EXAMPLES)} == set(FORMATS)
    assert len(EXAMPLES) == DOCUMENT.read_text().count("```json")


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_is_recognised_and_read(tmp_path: Path, name: str, example: str) -> None:
    path = tmp_path / "example"
    path.write_text(example)
    assert SourceFile.of(Stream(path)).format == name
    found = [(record.user_input, record.agent_response) for record in read_source(path, reading=Reading(user="ann"))]
    assert found in MESSAGES if name == "messages" else found == PAGES[name]


def test_all_examples_are_ingested(tmp_path: Path, here: Here) -> None:
    paths = []
    for number, (_, example) in enumerate(EXAMPLES):
        paths.append(tmp_path / f"example {number}")
        paths[-1].write_text(example)
    result = here.json("ingest", *paths, "--store", tmp_path / "store", "--user", "ann")
    count = sum(map(len, [*PAGES.values(), *MESSAGES]))
    assert (result["accepted"], result["left_out"]) == (count, 0)
    assert len(exported(tmp_path / "store")) == count
    known = here.json("knowledge", "--store", tmp_path / "store", "--user", "ann")
    assert "Likes tea." in str(known)


def test_the_options_are_those_of_the_command(here: Here) -> None:
    assert here("ingest", "--help") == 0
    told = set(re.findall(r"^\| `(--[\w-]+)", DOCUMENT.read_text(), re.MULTILINE))
    offered = set(re.findall(r"(--[\w-]+)", here.out)) - {"--help", "--config", "--json", "--verbose", "--store"}
    assert told == offered
