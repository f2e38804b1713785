"""The commands beside a process that owns the store: they ask it, and say what they say without one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.service import client, protocol
from tests.cli.common import Here, Record, environment, exported, records, write

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0


@contextlib.contextmanager
def owner_of(store: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.owner", str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(), **settings},
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
            process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()


@pytest.fixture
def owned(telling_store: Path, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A store and the pid of the process that owns it."""
    store = shutil.copytree(telling_store, tmp_path / "store")
    with owner_of(store) as process:
        yield store, process.pid


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


LOOKS = [
    ("sessions", "--user", "tom"),
    ("profile", "--user", "tom"),
    ("knowledge", "--user", "tom", "--about", "assistant"),
    ("query", "which beagle?", "--user", "tom", "-k", "3", "--explain"),  # last: it is a visit, which heats sessions
]


def test_what_is_shown_is_the_same_with_an_owner_and_without(
    here: Here, owned: tuple[Path, int], telling_store: Path
) -> None:
    def told(store: Path) -> list[Any]:
        assert here("export", "-", "--store", store) == ExitCode.OK
        answers = [here.out, *(here.json(*look, "--store", store) for look in LOOKS)]
        answers[1]["sessions"].sort(key=lambda session: session["session_id"])
        for session in answers[1]["sessions"]:
            del session["heat"]  # it falls as time goes by
        return answers

    without = shutil.copytree(telling_store, owned[0].parent / "without")
    assert told(owned[0]) == told(without)


def test_stats_and_verify(here: Here, owned: tuple[Path, int]) -> None:
    stats = here.json("stats", "--store", owned[0])
    assert stats["workers"]["embedder"]["state"] in {"starting", "ready"}
    assert here.json("verify", "--store", owned[0])["owner"] == owned[1]


def test_a_page_is_added_found_and_forgotten(
    here: Here, owned: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = owned[0]
    assert here("add", "--store", store, "--user", "ann", "--said", "I sail.", "--answered", "Far?") == ExitCode.OK
    page_id = here.out.strip()
    typed(monkeypatch, json.dumps({"user_id": "ann", "user_input": "To Crete.", "agent_response": "Oh."}).encode())
    other = here.json("add", "-", "--store", store, "--metadata", '{"ship": 7}', "--id", "mine")["page_id"]
    assert other == "mine"
    found = here.json("query", "sail", "--store", store, "--user", "ann")
    assert {hit["page"]["page_id"] for hit in found["pages"]} == {page_id, "mine"}
    assert found["short_term"][1]["metadata"] == {"ship": 7}
    assert here.json("forget", "--store", store, "--user", "ann", "--yes")["forgotten"] == 2
    assert here.json("query", "sail", "--store", store, "--user", "ann")["pages"] == []
    assert here.json("compact", "--store", store, "--timeout", PATIENCE_S)["before"] > 0
    assert here.json("retry", "--store", store) == {"given_out_again": 0, "set_aside": {}}


def test_files_are_read_in(here: Here, owned: tuple[Path, int], tmp_path: Path) -> None:
    told: list[Record] = records(40, users=2)
    path = write(tmp_path / "pages.jsonl", told)
    assert here.json("ingest", path, "--store", owned[0])["accepted"] == 40
    assert here.json("ingest", path, "--store", owned[0])["accepted"] == 0
    assert sum(page["user_id"].startswith("user ") for page in exported(owned[0])) == 40


def test_errors_are_those_of_a_store_of_ones_own(here: Here, owned: tuple[Path, int]) -> None:
    store = owned[0]
    assert here("add", "--store", store, "--user", "", "--said", "a", "--answered", "b") == ExitCode.INPUT
    assert "user_id must be a string that is not empty" in here.err
    assert here("query", "q", "--store", store, "--user", "tom", "--since", "never") == ExitCode.INPUT
    assert "since must be" in here.err


@pytest.fixture(params=["switched off", "none to be had"])
def mute(telling_store: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """A store whose owner answers nobody, and that one's pid."""
    store, settings = shutil.copytree(telling_store, tmp_path / "store"), dict[str, str]()
    if request.param == "switched off":
        settings["MOS_PIPELINE_RUNTIME__SOCKET"] = "false"
    else:
        (store / "SOCKET" / "in the way").mkdir(parents=True)
    with owner_of(store, **settings) as process:
        yield store, process.pid


def test_beside_an_owner_that_can_not_be_asked_the_disk_is_read(
    here: Here, mute: tuple[Path, int], telling_store: Path
) -> None:
    store, pid = mute
    without = shutil.copytree(telling_store, store.parent / "without")
    for look in (*LOOKS, ("export", "-"), ("stats", "--json"), ("stats", "--prometheus")):
        assert here(*look, "--store", store) == ExitCode.OK, here.err
        assert f"note: process {pid} has this store open and can't be asked" in here.err
        shown = here.out
        assert here(*look, "--store", without) == ExitCode.OK
        if look[0] not in {"stats", "query", "sessions"}:  # in these are paths, workers, visits and the time
            assert shown == here.out
    assert here.json("query", "which beagle?", "--store", store, "--user", "tom", "-k", "1")["pages"]
    assert here.json("stats", "--store", store)["pages"] == here.json("stats", "--store", without)["pages"]


def test_beside_an_owner_that_can_not_be_asked_nothing_is_changed(
    here: Here, mute: tuple[Path, int], tmp_path: Path
) -> None:
    store, pid = mute
    path = write(tmp_path / "pages.jsonl", records(3))
    for change in (
        ("add", "--user", "tom", "--said", "a", "--answered", "b"),
        ("ingest", path),
        ("forget", "--user", "tom", "--yes"),
        ("compact",),
        ("retry",),
    ):
        assert here(*change, "--store", store) == ExitCode.STORE
        assert f"process {pid} has this store open and answers on no socket" in here.err
        assert "do so in that process, close it there first, or switch runtime.socket on there" in here.err
    assert "can't be asked" in str(here.json("doctor", "--store", store)["findings"])


def test_an_owner_that_dies_amid_an_answer_is_told(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = ("add", "--store", tmp_path / "store", "--user", "tom", "--said", "a", "--answered", "b")
    with owner_of(tmp_path / "store") as process:
        send = protocol.send

        def kill_first(*args: Any) -> None:
            os.kill(process.pid, signal.SIGSTOP)
            send(*args)
            os.kill(process.pid, signal.SIGKILL)

        with monkeypatch.context() as patch:
            patch.setattr("mos_pipeline.service.client.send", kill_first)
            assert here(*add) == ExitCode.STORE
        assert f"process {process.pid} went away before it had answered add" in here.err
    assert here(*add) == ExitCode.OK  # the dead owner's socket is no obstacle


def test_beside_an_owner_that_hangs_the_disk_is_read_and_questions_end(
    here: Here, owned: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, pid = owned
    monkeypatch.setattr(client, "CALL_S", 0.5)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert here.json("verify", "--store", store)["ok"]
        assert here("backup", tmp_path / "copy", "--store", store) == ExitCode.OK
        assert here("stats", "--store", store) == ExitCode.DEADLINE
        assert f"process {pid} has not answered stats in time; does it hang?" in here.err
        assert "can't be asked" in str(here.json("doctor", "--store", store)["findings"])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert here.json("stats", "--store", tmp_path / "copy")["pages"] == here.json("stats", "--store", store)["pages"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"[1]", "one JSON object"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"user_id": "a", "user_input": "b"}', "missing: agent_response"),
        (b'{"user_id": "a", "user_input": "b", "agent_response": "c", "who": 1}', r"unknown fields \['who'\]"),
        (b'{"user_id": 7, "user_input": "b", "agent_response": "c"}', "user_id must be a string"),
    ],
)
def test_what_is_no_page_is_refused(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    typed(monkeypatch, data)
    assert here("add", "-", "--store", tmp_path / "store") == ExitCode.INPUT
    assert re.search(words, here.err), here.err


def test_a_page_is_added_to_a_store_of_any_model(
    here: Here, telling_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = shutil.copytree(telling_store, tmp_path / "store")
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__BACKEND", "torch")
    assert here("add", "--store", store, "--user", "ann", "--said", "a", "--answered", "b") == ExitCode.OK, here.err
    assert here("add", "--store", tmp_path / "new", "--user", "ann", "--said", "a", "--answered", "b") == ExitCode.OK
    assert here("add", "--store", store, "--user", "ann") == ExitCode.INPUT
    assert "missing: user_input, agent_response" in here.err
    assert here("add", "--store", store, "--metadata", "[1]") == ExitCode.USAGE
