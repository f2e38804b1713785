from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mos_pipeline import errors
from mos_pipeline.cli import stats
from mos_pipeline.cli.exits import ExitCode, exit_code
from mos_pipeline.cli.signals import Interrupted, Signals, terminal_blocked
from tests.cli.common import REPO, Here, start
from tests.support import signals_heeded

COMMANDS = (
    "ingest",
    "query",
    "respond",
    "chat",
    "sessions",
    "profile",
    "knowledge",
    "forget",
    "stats",
    "top",
    "verify",
    "export",
)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda c: c[0] if c else "all")
def test_help(here: Here, command: tuple[str, ...]) -> None:
    assert here(*command, "--help") == ExitCode.OK
    assert here.out.startswith("usage: mos-pipeline")
    assert not here.err
    if command:
        assert {"--config", "--json", "--store"} <= set(here.out.replace(",", " ").split())


def test_the_command_line_itself_loads_none_of_the_libraries_it_may_need() -> None:
    # The package's door is passed by: what it loads is its own affair.
    program = (
        "import sys, types\n"
        "package = types.ModuleType('mos_pipeline')\n"
        f"package.__path__ = [{str(REPO / 'mos_pipeline')!r}]\n"
        "sys.modules['mos_pipeline'] = package\n"
        "from mos_pipeline.cli import main\n"
        "try:\n    main(['ingest', '--help'])\n"
        "finally:\n    sys.stderr.write(' '.join({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "mos_pipeline" in loaded
    assert not loaded & {"numpy", "msgpack", "zstandard", "ijson", "yaml", "numkong", "torch", "openai"}


def test_the_version(here: Here) -> None:
    assert here("--version") == ExitCode.OK
    assert here.out.startswith("mos-pipeline 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("remember",),
        ("stats",),
        ("ingest", "--store", "s"),
        ("query", "q", "--store", "s", "--user", "u", "-k", "0"),
        ("query", "q", "--store", "s", "--user", "u", "--timeout", "nan"),
        ("query", "q", "--store", "s", "--user", "u", "--timeout", "-1"),
        ("query", "q", "--store", "s", "--user", "u", "--where", "key"),
        ("query", "q", "--store", "s", "--user", "u", "--where", "=value"),
        ("query", "q", "--store", "s", "--user", "u", "--max-tokens", "0"),
        ("query", "q", "--store", "s", "--user", "u", "--order", "age"),
        ("sessions", "--store", "s", "--user", "u", "--offset", "-1"),
        ("knowledge", "--store", "s", "--user", "u", "--limit", "0"),
        ("knowledge", "--store", "s", "--user", "u", "--about", "cat"),
        ("profile", "--store", "s"),
        ("forget", "--store", "s", "--yes"),
        ("forget", "--store", "s", "--yes", "--user", "u", "--page", "p"),
        ("forget", "--store", "s", "--yes", "--user", "u", "--session", "-1"),
        ("ingest", "f", "--store", "s", "--format", "csv"),
    ],
    ids=" ".join,
)
def test_wrong_usage(here: Here, arguments: tuple[str, ...]) -> None:
    assert here(*arguments) == ExitCode.USAGE
    assert "usage:" in here.err


ON_A_STORE: list[tuple[str, ...]] = [
    ("stats",),
    ("verify",),
    ("export", "-"),
    ("query", "q", "--user", "u"),
    ("sessions", "--user", "u"),
    ("profile", "--user", "u"),
    ("knowledge", "--user", "u"),
    ("forget", "--user", "u", "--yes"),
]


@pytest.mark.parametrize("command", ON_A_STORE, ids=lambda command: command[0])
def test_a_folder_without_a_store_is_told_and_left_alone(here: Here, tmp_path: Path, command: tuple[str, ...]) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        assert here(*command, "--store", folder) == ExitCode.STORE
        assert here.err.startswith("error: ")
        assert f"{folder}: there is no store here" in here.err
        assert len(here.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [*ON_A_STORE, ("ingest", "--format=jsonl")], ids=lambda command: command[0])
def test_a_wrong_setting_is_told(here: Here, sample_store: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("retrieval:\n  kk: 3\n")
    paths = [config] * (command[0] == "ingest")
    assert here(*command, *paths, "--store", sample_store, "--config", config) == ExitCode.INPUT
    assert "error: " in here.err
    assert "retrieval.kk" in here.err


def test_every_error_of_the_tree_has_a_code_of_its_own_kind() -> None:
    expected = {
        "InputError": ExitCode.INPUT,
        "ConfigError": ExitCode.INPUT,
        "StoreLockedError": ExitCode.STORE,
        "StoreDamagedError": ExitCode.STORE,
        "StoreVersionError": ExitCode.STORE,
        "StoreFullError": ExitCode.STORE,
        "ModelMismatchError": ExitCode.STORE,
        "ModelNotFoundError": ExitCode.WORKER,
        "WorkerError": ExitCode.WORKER,
        "DeadlineError": ExitCode.DEADLINE,
        "BackpressureError": ExitCode.DEADLINE,
        "ClosedError": ExitCode.UNEXPECTED,
    }
    assert {name: exit_code(getattr(errors, name)("x")) for name in expected} == expected


@pytest.mark.parametrize("verbose", [False, True])
def test_an_unexpected_error_is_one_line_unless_more_is_wanted(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verbose: bool
) -> None:
    def fails(*_: object) -> ExitCode:
        raise ZeroDivisionError("a surprise\nin two lines")

    monkeypatch.setattr(stats, "run", fails)
    assert here("stats", "--store", tmp_path, *["--verbose"] * verbose) == ExitCode.UNEXPECTED
    assert here.err.splitlines()[-1].startswith("error: unexpected ZeroDivisionError: a surprise in two lines")
    assert ("Traceback" in here.err) == verbose
    assert len(here.err.splitlines()) == 1 or verbose


def test_a_reader_that_goes_away_ends_the_command_quietly(sample_store: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = start("stats", "--store", sample_store, stdout=write_end)
    os.close(write_end)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (ExitCode.OUTPUT_CLOSED, "")


def test_the_first_signal_interrupts_and_later_ones_do_not() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signals.check()
    assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_is_only_noted_while_it_is_held_off() -> None:
    with Signals() as signals:
        signals.check()
        with signals.held(), signals.held():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signals.check()


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGTERM)
            signals.check()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_json_goes_to_stdout_alone(here: Here, sample_store: Path) -> None:
    assert here("verify", "--store", sample_store, "--json") == ExitCode.OK
    assert json.loads(here.out)["ok"] is True
    assert not here.err


def test_ctrl_c_waits_while_children_are_started() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Signals() as signals:
            got_through = False
            with pytest.raises(Interrupted), terminal_blocked():
                signal.raise_signal(signal.SIGINT)
                signals.check()
                got_through = True
            assert got_through
            assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, before)


@signals_heeded()
def test_whoever_waits_is_woken_by_what_can_be_read_by_a_signal_or_by_the_time() -> None:
    read_end, write_end = os.pipe()
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with Signals() as signals, signals.held():
        signals.wait(0.0)
        signals.wait(0.0, read_end)
        os.write(write_end, b"x")
        signals.wait(descriptor=read_end)
        signal.raise_signal(signal.SIGHUP)
        for _ in range(2):
            with pytest.raises(Interrupted):
                signals.wait(descriptor=read_end)
    assert signal.set_wakeup_fd(before) == before
    os.close(read_end)
    os.close(write_end)


def test_a_signal_ends_a_wait_that_has_no_end() -> None:
    sender = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with Signals() as signals, signals.held():
        sender.start()
        with pytest.raises(Interrupted):
            signals.wait()
    sender.join()
