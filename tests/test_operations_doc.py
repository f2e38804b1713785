"""The commands of docs/operations.md are run as they stand there, and what it says of settings and figures is so."""

from __future__ import annotations

import dataclasses
import io
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from mos_pipeline.cli.app import COMMANDS
from mos_pipeline.config import Config
from mos_pipeline.metrics import Stats, TaskStats, WorkerStats, prometheus
from tests.cli.common import REPO, SETTINGS, Here
from tests.cli.test_beside_owner import owner_of

DOC = (REPO / "docs" / "operations.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", DOC, flags=re.MULTILINE)[1:]}
BESIDE = "Beside a running owner"


def commands(section: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", section, flags=re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_every_command_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    here = Here(capsys)

    def run(lines: list[str]) -> None:
        for line in lines:
            typed, _, command = line.rpartition(" | ")
            if typed:
                text = subprocess.run(["bash", "-c", typed], capture_output=True, check=True).stdout
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
            program, *arguments = shlex.split(command)
            assert program == "mos-pipeline"
            assert here(*arguments) == 0, f"{line}: {here.err}"

    for heading, section in SECTIONS.items():
        with owner_of(tmp_path / "memory") if heading == BESIDE else nullcontext():
            run(commands(section))


def test_the_fake_endpoint_is_used_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", SECTIONS["Testing with a fake endpoint"], flags=re.DOTALL)
    exec(program, {})
    assert re.fullmatch(r"7 TaskStats\(.*, repairs=1, fallbacks=0, .*\)\n", capsys.readouterr().out)


def test_every_command_is_told_of() -> None:
    names = {command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS}
    table = SECTIONS[BESIDE].partition("| command |")[2]
    assert names == set(re.findall(r"`([a-z-]+)`", table.partition("\n\n")[0])), "the table of what asks the owner"
    assert names <= {line.split()[1] for line in re.findall(r"mos-pipeline [a-z-]+", DOC)}


def test_every_setting_that_is_named_is_one() -> None:
    sections = {section.name for section in dataclasses.fields(Config)}
    named = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_0-9]+)", DOC))
    known = {f"{name}.{key}" for name, keys in Config().as_dict().items() for key in keys}
    assert named
    assert named <= known


def test_every_figure_that_is_named_is_one() -> None:
    worker = WorkerStats("ready", (1,), 0, 0, None)
    task = TaskStats(1, 1, 1, 1, 1, 1, 1, 1)
    stats = Stats(
        "memory",
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        True,
        0,
        0,
        {},
        {"model": "m"},
        [],
        {"llm": worker},
        {"topics": task},
        "up",
        {"topics": 1},
    )
    known = set(re.findall(r"^(mos_pipeline_\w+)", prometheus(stats), flags=re.MULTILINE))
    named = set(re.findall(r"`(mos_pipeline_\w+)", DOC)) - {"mos_pipeline_"}
    assert named
    assert named <= known


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", DOC):
        assert (REPO / "docs" / target).exists(), target
