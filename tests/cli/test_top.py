"""``top``: figures of a running owner, on a terminal and as lines of JSON, until something ends it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.output import cut
from mos_pipeline.cli.panel import panel
from mos_pipeline.cli.rates import Rates
from mos_pipeline.cli.screen import ENTER, LEAVE, Screen
from mos_pipeline.metrics import Stats, TaskStats, WorkerStats
from mos_pipeline.service import client
from tests.cli.common import PATIENCE_S, Here, start
from tests.cli.test_beside_owner import owner_of

EMPTY = Stats("memory", 0, 0, 0, 0, 0, 0, 0, 0, 0, True, 0, 0, {}, {}, [], {})
TASK = TaskStats(1, 2, 3, 4, 5, 6, 7, 8)
BUSY = replace(
    EMPTY,
    backlog_pages=12_345,
    backlog_bytes=3 << 20,
    in_flight_texts=128,
    waiting_pages=45,
    unwritten=6,
    accepted_pages=100,
    embedded_pages=90,
    placed_pages=80,
    written_pages=70,
    embedded_texts=60,
    reused_texts=50,
    memory=1 << 26,
    model={"model": "模型\x1b[31m", "dimension": 384, "backend": "torch", "precision": "fp32"},
    embedder={"threads": 2, "ms_per_batch": 94.2},
    workers={
        "embedder": WorkerStats("failed", (1,), 7, 3, "no model\nat all \x1b[2J", (1 << 29,)),
        "llm": WorkerStats("ready", (2, 3), 8, 0, None, (1 << 20, 3 << 20)),
    },
    tasks={"topics": TASK},
    endpoint="down since 2026-11-26 21:00:00",
    owed={"topics": 17, "profile": 4},
    unlifted=9,
    set_aside={"page": "why"},
    damage=["there"],
)


# Rates


@given(st.lists(st.tuples(*[st.integers(0, 1 << 40)] * 4), min_size=2, max_size=2), st.integers(1, 100))
def test_a_rate_is_what_a_counter_grew_by_in_the_time(grown: list[tuple[int, ...]], seconds: int) -> None:
    before = grown[0]
    after = [one + other for one, other in zip(*grown, strict=True)]

    def stats(accepted: int, embedded: int, reused: int, calls: int) -> Stats:
        tasks = {"topics": replace(TASK, calls=calls), "profile": replace(TASK, calls=1)}
        return replace(EMPTY, accepted_pages=accepted, embedded_pages=embedded, reused_texts=reused, tasks=tasks)

    rates = Rates()
    assert rates(stats(*before), 50.0) is None
    found = rates(stats(*after), 50.0 + seconds)
    assert found is not None
    told = [found[name] for name in ("accepted", "embedded", "reused", "calls")]
    assert told == [grew / seconds for grew in grown[1]]
    assert found["placed"] == found["written"] == found["computed"] == 0


def test_there_is_no_rate_where_counters_began_anew_or_no_time_passed() -> None:
    rates = Rates()
    assert rates(BUSY, 1.0) is None
    assert rates(BUSY, 1.0) is None
    assert rates(EMPTY, 2.0) is None
    assert rates(BUSY, 3.0) is not None


# What is shown


def test_everything_that_matters_is_shown() -> None:
    rates = dict.fromkeys(("accepted", "embedded", "placed", "written", "computed", "reused", "calls"), 1000.5)
    lines = panel(BUSY, rates, "heading")
    text = "\n".join(lines)
    assert lines[0] == "heading"
    stages = {line.split()[0]: line for line in lines[3:9] if line.strip()}
    assert "1,000.5  12,345 pages, 3.0 MiB" in stages["accepted"]
    assert stages["accepted"].endswith("64.0 MiB")
    assert re.search(r"1,000.5  128 texts, 7 units +failed +512.0 MiB +3$", stages["embedder"])
    assert re.search(r"45 pages, 8 units +ready 2 +4.0 MiB +0$", stages["llm"])
    assert re.search(r"6 pieces +- +- +-$", stages["writer"])
    assert "down: no model at all" in text
    assert "60 computed (1,000.5/s), 50 reused (1,000.5/s)" in text
    assert "384 dimensions, torch fp32, 2 threads, 94.2 ms a full batch" in text
    assert "endpoint  down since" in text
    tasks = {line.split()[0]: line.split()[1:] for line in lines[-2:]}
    assert tasks == {"topics": ["1", "4", "5", "6", "17", "7", "8"], "profile": [*"----", "4", *"--"]}
    for told in ("9 vectors by another model", "set aside 1 page", "damage    1 place"):
        assert told in text


def test_without_rates_the_rest_is_shown() -> None:
    text = "\n".join(panel(replace(EMPTY, restored=False), None, "heading"))
    assert "- " in text
    assert "model     none yet" in text
    assert "still being read" in text
    assert "task" not in text


class Terminal(io.StringIO):
    """Notes what is written; it has a size."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int, term: str = "xterm") -> None:
        super().__init__()
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, lines)))


@pytest.mark.parametrize("columns", [2, 20, 61, 200])
@pytest.mark.parametrize("rows", [1, 5, 50])
def test_nothing_is_wrapped_nor_scrolls(monkeypatch: pytest.MonkeyPatch, columns: int, rows: int) -> None:
    terminal = Terminal(monkeypatch, columns, rows)
    with Screen(terminal) as screen:
        screen.draw(panel(BUSY, None, "記憶" * 60))
        drawn = terminal.getvalue().removeprefix(ENTER)
    lines = drawn.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "").split("\r\n")
    assert "\x1b" not in "".join(lines)
    assert len(lines) == min(rows, len(panel(BUSY, None, "")))
    assert all(cut(line, columns - 1) == " ".join(line.split()) for line in lines)
    assert all(cells(line) <= columns - 1 for line in lines)


def cells(line: str) -> int:
    return sum(2 if char in "記憶模型" else 1 for char in line)


def test_what_was_drawn_last_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 80, 24)
    with pytest.raises(KeyboardInterrupt), Screen(terminal) as screen:
        screen.draw(["one", "two"])
        screen.draw(["three"])
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith(f"{LEAVE}three\n")


def test_a_terminal_that_obeys_nothing_gets_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 80, 24, term="dumb")
    with Screen(terminal) as screen:
        screen.draw(["one", "two"])
    assert terminal.getvalue() == "one\ntwo\n\n"


# Beside a real owner


@pytest.mark.slow
def test_beside_an_owner(here: Here, telling_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(telling_store, tmp_path / "store")
    with owner_of(store) as owner:
        check_that_each_snapshot_is_a_line_of_json(here, store, owner.pid)
        check_that_added_pages_are_counted(here, store)
        check_that_ctrl_c_leaves_the_terminal_as_it_was(store)
        check_that_sigterm_and_a_closed_pipe_end_it_in_order(store)


def lines_of(here: Here, *arguments: object) -> list[dict[str, Any]]:
    assert here("top", *arguments) == ExitCode.OK, here.err
    return [json.loads(line) for line in here.out.splitlines()]


def check_that_each_snapshot_is_a_line_of_json(here: Here, store: Path, pid: int) -> None:
    first, second = lines_of(here, "--store", store, "--count", 2, "--interval", 0.1)
    assert first["rates"] is None
    assert set(second["rates"]) == {"accepted", "embedded", "placed", "written", "computed", "reused", "calls"}
    assert second["time"] > first["time"]
    assert first["pages"] == 18
    assert here.json("stats", "--store", store)["pages"] == 18
    assert first["memory"] > 1 << 20
    workers = second["workers"]
    assert set(workers) == {"embedder", "llm", "writer"}
    for worker in workers.values():
        assert len(worker["memory"]) == len(worker["pids"])
        assert pid not in worker["pids"]


def check_that_added_pages_are_counted(here: Here, store: Path) -> None:
    (before,) = lines_of(here, "--store", store, "--count", 1)
    for number in range(3):
        here.json(
            "add", "--store", store, "--user", f"fresh {number}", "--said", "the same", "--answered", "said thrice"
        )
    (after,) = lines_of(here, "--store", store, "--count", 1)
    assert after["accepted_pages"] - before["accepted_pages"] == 3


def watched(store: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    settings = {"TERM": "xterm"}  # on a dumb terminal nothing is drawn in place
    return start("top", "--store", store, "--interval", 0.1, *arguments, settings=settings, **options)


def check_that_ctrl_c_leaves_the_terminal_as_it_was(store: Path) -> None:
    ours, theirs = pty.openpty()
    with watched(store, stdout=theirs) as process:
        os.close(theirs)
        shown = read_until(ours, "holds", 2)
        process.send_signal(signal.SIGINT)
        shown += read_rest(ours)
        assert process.wait(PATIENCE_S) == ExitCode.INTERRUPTED
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted\n"
    os.close(ours)
    assert shown.startswith(ENTER)
    _, left, after = shown.partition(LEAVE)
    assert left
    assert "21 pages" in after
    assert "\x1b" not in after


def read_until(descriptor: int, word: str, times: int) -> str:
    found = b""
    while found.count(word.encode()) < times:
        found += os.read(descriptor, 4096)
    return found.decode()


def read_rest(descriptor: int) -> str:
    found = b""
    while True:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # how a terminal ends
            return found.decode()
        found += piece


def check_that_sigterm_and_a_closed_pipe_end_it_in_order(store: Path) -> None:
    with watched(store) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pages"]
        process.terminate()
        assert process.wait(PATIENCE_S) == ExitCode.TERMINATED
    with watched(store) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == ExitCode.OUTPUT_CLOSED
        assert process.stderr is not None
        assert not process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_it_says_when_the_owner_has_ended(telling_store: Path, tmp_path: Path, killed: bool) -> None:
    store = shutil.copytree(telling_store, tmp_path / "store")
    with owner_of(store) as owner, watched(store) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if killed:
            owner.kill()
        else:
            owner.communicate(timeout=PATIENCE_S)
            owner.stdin = None  # it is closed
        assert process.wait(PATIENCE_S) == ExitCode.STORE
        assert process.stderr is not None
        told = process.stderr.read()
        assert told.startswith(f"error: {store}: process {owner.pid} has closed the store, or ended")


@pytest.mark.slow
def test_an_owner_that_hangs_is_not_waited_for_for_ever(
    here: Here, telling_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CALL_S", 0.3)
    store = shutil.copytree(telling_store, tmp_path / "store")
    with owner_of(store) as owner:
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            assert here("top", "--store", store) == ExitCode.DEADLINE
        finally:
            os.kill(owner.pid, signal.SIGCONT)
    assert f"process {owner.pid} has not answered stats in time; does it hang?" in here.err
    assert not here.out


def test_without_an_owner_it_says_what_to_do(here: Here, sample_store: Path, tmp_path: Path) -> None:
    assert here("top", "--store", sample_store) == ExitCode.STORE
    assert f"mos-pipeline stats --store {sample_store}" in here.err
    assert not here.out
    assert here("top", "--store", tmp_path) == ExitCode.STORE
    assert "there is no store here" in here.err


@pytest.mark.parametrize("wrong", ["0", "0.05", "nan", "inf", "soon"])
def test_an_interval_that_is_none_is_refused(here: Here, tmp_path: Path, wrong: str) -> None:
    assert here("top", "--store", tmp_path, "--interval", wrong) == ExitCode.USAGE
    assert "number of seconds of at least 0.1" in here.err
