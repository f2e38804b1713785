"""Children start from wherever the caller's code is, and that code runs once."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import mos_pipeline
from mos_pipeline.runtime.start import ChildProcess, InheritedFd, spawn_context
from tests.runtime.office import PATIENCE_S, Office

REPO = Path(mos_pipeline.__file__).parents[1]

# No guard: importing it as a module would start everything again.
SCRIPT = """
with open({marker!r}, "a") as file:
    file.write("ran\\n")
from tests.runtime.office import Office
with Office() as office:
    print(office.ask("echo", "hello").result, office.wait("ready").info["main"])
"""
# What a notebook does: its kernel's file is __main__ no more, cells run in a __main__ of their own, without a file.
NOTEBOOK = """
import sys, types
kernel = sys.modules["__main__"] = types.ModuleType("__main__")
for cell in {cells!r}:
    exec(compile(cell, "<ipython-input>", "exec"), vars(kernel))
"""


@pytest.mark.parametrize("way", ["file", "stdin", "-c", "-m", "notebook"])
def test_an_unguarded_script_runs_once_and_finishes(way: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "unguarded.py"
    script = SCRIPT.format(marker=str(marker))
    path.write_text(NOTEBOOK.format(cells=script.split("\n", 3)[:0] + [script]) if way == "notebook" else script)
    arguments = {"stdin": ["-"], "-c": ["-c", script], "-m": ["-m", "unguarded"]}.get(way, [str(path)])
    with path.open() as file:
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            env={**os.environ, "PYTHONPATH": f"{REPO}:{tmp_path}"},
        )
    assert (done.stdout, done.stderr, done.returncode) == ("hello False\n", "", 0)
    assert marker.read_text() == "ran\n"


def test_the_callers_main_module_is_left_as_it_is() -> None:
    main = sys.modules["__main__"]
    before = dict(vars(main))
    with Office() as office:
        assert office.ask("echo", 1).result == 1
    assert dict(vars(main)) == before


def test_other_processes_of_the_caller_start_as_they_always_did() -> None:
    """The patch is ours alone: multiprocessing itself still prepares the main module."""
    spawn = multiprocessing.get_context("spawn")
    assert "main_path" in str(multiprocessing.spawn.get_preparation_data("x")) or spawn is not None
    assert spawn.Process._Popen is not ChildProcess._Popen


def read_all(inherited: InheritedFd, pipe: Connection) -> None:
    with open(inherited.fd, "rb") as file:  # noqa: PTH123
        pipe.send_bytes(file.read())


def test_a_child_inherits_a_descriptor_and_the_parent_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    ours, theirs = spawn_context.Pipe(duplex=False)
    with path.open("rb") as file:
        path.unlink()
        process = ChildProcess(target=read_all, args=(InheritedFd(file.fileno()), theirs))
        process.start()
        theirs.close()
        assert ours.recv_bytes() == b"content"
        process.join(PATIENCE_S)
        assert process.exitcode == 0
        process.close()
        assert os.fstat(file.fileno()).st_size == 7
    ours.close()
