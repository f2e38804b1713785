"""Closing: within the deadline, in order, and nobody is left behind; nor is anybody when nobody closes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mos_pipeline
from tests.runtime.office import PATIENCE_S, Office, gone, toy
from tests.support import children

REPO = Path(mos_pipeline.__file__).parents[1]

# A main process of its own: says its children's pids, then does what its argument says.
MAIN = """
import os, signal, sys, time
from tests.runtime.office import Office, toy
office = Office(toy(), toy(name="busy"), toy(name="state", stateful=True), toy("hang", name="starting"))
office.supervisor.start()
for name in ("toy", "busy", "state"):
    office.wait("ready", name)
office.submit("sleep", 3600, role="busy")
pids = [pid for name in ("toy", "busy", "state", "starting") for pid in office.pids(name)]
print(*pids, flush=True)
if sys.argv[1] == "wait":
    time.sleep(3600)
"""


def main_process(argument: str) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, argument],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    process.stdout.close()
    assert len(pids) == 4
    return process, pids


def test_close_ends_workers_in_every_state(tmp_path: Path) -> None:
    roles = [toy(name=name) for name in ("idle", "busy", "hanging", "stopped")]
    roles += [toy("hang", name="starting"), toy("SIGKILL", name="dying")]
    roles += [toy(name="stateful", stateful=True), toy("hang", name="stateful starting", stateful=True)]
    office = Office(*roles)
    with office:
        for name in ("idle", "busy", "hanging", "stopped", "stateful"):
            office.wait("ready", name)
        office.submit("hang", str(tmp_path / "hang"), role="hanging")
        office.signal(signal.SIGSTOP, "stopped")
        for _ in range(50):
            office.submit("sleep", 0.05, role="busy")
        deadline = time.monotonic() + PATIENCE_S
        office.supervisor.close(deadline)
        assert time.monotonic() < deadline  # nobody had to be waited for
        assert children() == {}


def test_close_before_anything_has_started() -> None:
    with Office(toy(), toy(name="state", stateful=True)) as office:
        office.close()
        assert children() == {}


def test_a_stateful_worker_finishes_what_it_accepted(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with Office(toy("well", str(note), stateful=True)) as office:
        office.wait("ready")
        units = [office.submit("sleep", 0.01) for _ in range(30)]
        office.close()
        assert [office.outcomes[unit][0].fate for unit in units] == ["done"] * 30
    assert note.read_text().split() == [*map(str, units), "closed"]


def test_a_stateful_worker_that_does_not_finish_is_killed_at_the_deadline(tmp_path: Path) -> None:
    with Office(toy(stateful=True)) as office:
        office.wait("ready")
        unit = office.submit("hang", str(tmp_path / "hang"))
        office.close(within=0.5)
        assert children() == {}
        assert not office.outcomes[unit]


def test_work_given_out_after_the_close_hurts_nobody() -> None:
    with Office() as office:
        office.wait("ready")
        office.close()
        unit = office.submit("echo")
        assert office.supervisor.state("toy").workers == 0
        assert not office.outcomes[unit]


def test_when_the_main_process_is_killed_its_children_go() -> None:
    process, pids = main_process("wait")
    process.kill()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert gone(pids)


def test_a_main_process_that_ends_without_closing_ends(tmp_path: Path) -> None:
    process, pids = main_process("end")
    assert process.wait(PATIENCE_S) == 0
    assert gone(pids)


def test_a_parent_that_ignores_sigterm_hands_that_on_to_nobody() -> None:
    """Its own exit ends its children by SIGTERM, and would wait for ever."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Office() as office:
            office.wait("ready")
            pid = office.signal(signal.SIGTERM)
            assert office.ask("echo").fate == "done"
            assert gone([pid])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_sends_is_the_parents_business(number: signal.Signals) -> None:
    with Office() as office:
        office.wait("ready")
        office.signal(number)
        assert office.ask("echo").fate == "done"
        assert office.supervisor.state("toy").restarts == 0
