"""What the command line's tests share: running it, in this process and in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import mos_pipeline
from mos_pipeline.cli import main
from tests.support import signals_heeded

REPO = Path(mos_pipeline.__file__).parents[1]
PATIENCE_S = 90.0  # the machine may be busy: it only keeps a hanging test from hanging for ever
SETTINGS = {"MOS_PIPELINE_EMBEDDING__BACKEND": "fake", "MOS_PIPELINE_LLM__PROCESSES": "1"}

Record = dict[str, Any]


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with ``settings``, or the fake model's, as the only ones of the library."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("MOS_PIPELINE_")}
    return {**rest, "PYTHONPATH": str(REPO), **SETTINGS, **(settings or {})}


def start(*arguments: object, settings: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start the command line in a process and a group of its own."""
    with signals_heeded():
        return subprocess.Popen(
            [sys.executable, "-m", "mos_pipeline", *map(str, arguments)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
            text=True,
            env=environment(settings),
            start_new_session=True,
        )


def run(*arguments: object, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, to its end."""
    process = start(*arguments, settings=settings)
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def result_of(*arguments: object, settings: Mapping[str, str] | None = None) -> Any:
    """Run a command with ``--json``, in this process, that must end well; return what it printed."""
    out, err = io.StringIO(), io.StringIO()
    told = mock.patch.dict(os.environ, environment(settings), clear=True)
    with told, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*map(str, arguments), "--json"])
    assert code == 0, err.getvalue()
    return json.loads(out.getvalue())


class Here:
    """Runs the command line in this process: quick, where nothing is killed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        """Run a command; return its exit code, keep its output."""
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: object) -> Any:
        """Run a command with ``--json`` that must end well; return what it printed."""
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)


def records(count: int, users: int = 3) -> list[Record]:
    """Return that many records of several users, each with all fields."""
    return [
        {
            "user_id": f"user {number % users}",
            "assistant_id": "helper",
            "user_input": f"question {number} about number{number}",
            "agent_response": f"answer {number}",
            "timestamp": f"2026-01-01 00:{number // 60 % 60:02}:{number % 60:02}",
            "metadata": {"number": number},
        }
        for number in range(count)
    ]


def telling_records() -> list[Record]:
    """Return records of one user with the default assistant in which both tell of themselves."""
    told = [
        ("I adopted a beagle named Rex.", "I am from Ghent, in Belgium."),
        ("I work as a banker in Vienna.", "I have two brothers and a dog."),
        ("I'm allergic to most reptiles.", "That is good to know."),
        ("My sister moved to Lisbon.", "I work as a gardener in Ghent."),
        ("I'm planning a trip to the East Coast.", "I adopted a parrot named Coco."),
        ("I really love sourdough bread.", "Bread is lovely."),
    ]
    return [
        {
            "user_id": "tom",
            "user_input": said,
            "agent_response": answered,
            "timestamp": f"2026-03-{number + 1:02} 10:00:00",
            "metadata": {"number": number, "tag": "even" if number % 2 == 0 else "odd"},
        }
        for number, (said, answered) in enumerate(told * 3)
    ]


def write(path: Path, lines: Iterable[Record | str]) -> Path:
    """Write records, or lines as they are, as a file of JSON Lines."""
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    return path


def exported(store: Path) -> list[Record]:
    """Return every page of a store, in order, as the command line exports them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pages.jsonl"
        result_of("export", file, "--store", store)
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def without_ids(pages: Iterable[Record]) -> list[Record]:
    """Return exported pages as the records they were read from."""
    return [{name: value for name, value in page.items() if name != "page_id"} for page in pages]


def until(condition: Callable[[], object], what: str, *, pause_s: float = 0.05) -> None:
    """Wait until ``condition`` holds; fail with ``what`` where it does not come to that."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {PATIENCE_S} s: {what}"
        time.sleep(pause_s)
