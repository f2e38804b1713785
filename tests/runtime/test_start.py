"""Children start from wherever the caller's code is, and that code runs once."""

from __future__ import annotations

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
UNGUARDED = True
with open({marker!r}, "a") as file:
    file.write("ran\\n")

from tests.runtime.office import Office
with Office() as office:
    print(office.ask("echo", "hello").result, office.wait("ready").info["unguarded"])
"""
# What a notebook does: its kernel's file is __main__ no more, cells run in a __main__ of their own, without a file.
NOTEBOOK = """
import sys, types
main = sys.modules["__main__"] = types.ModuleType("__main__")
for cell in {cells!r}:
    exec(compile(cell, "<cell>", "exec"), vars(main))
"""
# A caller with processes of its own, which find their functions in its main module.
WITH_OWN_PROCESSES = """
import multiprocessing
from tests.runtime.office import Office

def square(number):
    return number * number

if __name__ == "__main__":
    with Office() as office, multiprocessing.get_context("spawn").Pool(1) as pool:
        print(office.ask("echo", 7).result, pool.apply(square, (7,)))
        pool.terminate()
        pool.join()
"""


def run(arguments: list[str], stdin: Path, folder: Path) -> tuple[str, str, int]:
    """Run Python with the repository and ``folder`` on its path; return its output, errors and exit code."""
    with stdin.open() as file:
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            env={**os.environ, "PYTHONPATH": f"{REPO}:{folder}"},
        )
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize("way", ["file", "stdin", "-c", "-m", "notebook"])
def test_an_unguarded_script_runs_once_and_finishes(way: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "unguarded.py"
    script = SCRIPT.format(marker=str(marker))
    path.write_text(NOTEBOOK.format(cells=script.split("\n\n")) if way == "notebook" else script)
    arguments = {"stdin": ["-"], "-c": ["-c", script], "-m": ["-m", "unguarded"]}.get(way, [str(path)])
    assert run(arguments, path, tmp_path) == ("hello False\n", "", 0)
    assert marker.read_text() == "ran\n"


def test_the_callers_own_processes_start_as_they_always_did(tmp_path: Path) -> None:
    path = tmp_path / "guarded.py"
    path.write_text(WITH_OWN_PROCESSES)
    assert run([str(path)], path, tmp_path) == ("7 49\n", "", 0)


def test_the_callers_main_module_is_left_as_it_is() -> None:
    main = sys.modules["__main__"]
    before = dict(vars(main))
    with Office() as office:
        assert office.ask("echo", 1).result == 1
    assert dict(vars(main)) == before


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
