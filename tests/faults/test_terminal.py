"""A terminal that is closed under a command: SIGHUP for everybody in it, and nobody who takes what is said."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from mos_pipeline.cli.exits import ExitCode
from tests.cli.common import PATIENCE_S, records, start, until, write
from tests.cli.test_resume import LARGE_BACKLOG, check_goes_on, stored
from tests.faults.processes import session

COUNT = 300


def into_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("output", ["terminal", "json"])
def test_a_terminal_that_is_closed_ends_the_command_in_order(tmp_path: Path, output: str) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(COUNT)), tmp_path / "store"
    controller, terminal = pty.openpty()
    process = start(
        *("ingest", path, "--store", store, *["--json"] * (output == "json")),
        settings=LARGE_BACKLOG,
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
        preexec_fn=into_terminal,
    )
    os.close(terminal)
    try:
        until(lambda: stored(store) == COUNT, "all is stored")
        os.close(controller)
        assert process.wait(PATIENCE_S) == ExitCode.HANGUP
        until(lambda: session(process.pid) == [], "its children have ended")
        assert not (store / "SOCKET").exists(), "it did not close the store"
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    check_goes_on(path, store, COUNT, COUNT)


def test_under_nohup_a_terminal_that_is_closed_ends_nothing(tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(COUNT)), tmp_path / "store"
    slow = {"MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "5"}

    def ignoring() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start("ingest", path, "--store", store, "--json", settings=slow, preexec_fn=ignoring)
    try:
        until(lambda: stored(store) == COUNT, "all is stored")
        os.killpg(process.pid, signal.SIGHUP)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert (process.returncode, err) == (ExitCode.OK, "")
    assert '"backlog_pages": 0' in out


def test_a_terminal_that_nobody_watches_any_more_stops_no_command_that_is_not_told(tmp_path: Path) -> None:
    """Its notes and its bar go nowhere; only what was asked for, and can't be given out, has an exit code."""
    store = tmp_path / "store"
    controller, terminal = pty.openpty()
    os.close(controller)
    path = write(tmp_path / "pages.jsonl", ["no page", *records(20)])
    command = ("ingest", path, "--store", store, "--format", "jsonl", "--on-error", "skip")
    process = start(*command, stderr=terminal)
    assert "accepted" in process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == ExitCode.LEFT_OUT
    process = start("stats", "--store", store, stdout=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    assert process.communicate(timeout=PATIENCE_S)[1] == ""
    assert process.returncode == ExitCode.OUTPUT_CLOSED


def test_a_summary_that_nobody_takes_changes_no_exit_code(tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(COUNT)), tmp_path / "store"
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {**LARGE_BACKLOG, "PYTHONUNBUFFERED": ""}  # else it is told at once, and not at its exit
    process = start("ingest", path, "--store", store, stdout=write_end, settings=buffered)
    os.close(write_end)
    until(lambda: stored(store) == COUNT, "all is stored")
    process.terminate()
    err = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == ExitCode.TERMINATED
    assert err.splitlines()[-1] == "interrupted"
