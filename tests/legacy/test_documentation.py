"""The example of docs/migration.md does what stands there, and its options are the command's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mos_pipeline
from tests.cli.common import Here
from tests.cli.conftest import here as here_in_process

here = here_in_process
DOCUMENT = (Path(mos_pipeline.__file__).parents[1] / "docs" / "migration.md").read_text()
FILES = re.findall(r"<!-- file: (\S+) -->\n```json\n(.*?)```", DOCUMENT, re.DOTALL)
EXAMPLES = re.findall(r"<!-- example -->\n```console\n\$ mos-pipeline (.*?)\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_example_prints_what_it_says(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES:
        path = tmp_path / "memoryos_data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    ((command, output),) = EXAMPLES
    assert here(*command.split()) == 0
    assert here.out == output
    assert here("sessions", "--store", "memory", "--user", "tom") == 0
    assert "Tom adopts a beagle named Rex." in here.out


def test_the_options_are_those_of_the_command(here: Here) -> None:
    assert here("migrate", "--help") == 0
    told = set(re.findall(r"^\| `(--[\w-]+)", DOCUMENT, re.MULTILINE))
    offered = set(re.findall(r"(--[\w-]+)", here.out)) - {"--help", "--config", "--json", "--verbose", "--store"}
    assert told == offered
