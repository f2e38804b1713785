"""The command that forgets: what it names, when it asks, and that the bytes go."""

from __future__ import annotations

import io
import os
import pty
import shutil
import signal
import sys
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline, WorkerError
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.store.folder import StoreFolder, numbered
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segments import SegmentReader
from tests.cli.common import Here, exported, start

BEAGLE = "I adopted a beagle named Rex."


@pytest.fixture
def store(telling_store: Path, tmp_path: Path) -> Path:
    """A copy to forget in."""
    return shutil.copytree(telling_store, tmp_path / "store")


@pytest.fixture
def mixed_store(sample_store: Path, tmp_path: Path) -> Path:
    """A copy of a store with three users."""
    return shutil.copytree(sample_store, tmp_path / "store")


def answer_with(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have both ends of the conversation be a terminal, at which somebody types ``text``."""
    typed = io.StringIO(text)
    for stream in (typed, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", typed)


def test_a_page(here: Here, store: Path) -> None:
    before = exported(store)
    page_id = before[4]["page_id"]
    assert here.json("forget", "--store", store, "--page", page_id, "--yes") == {"forgotten": 1, "compaction": None}
    assert not here.err
    assert exported(store) == before[:4] + before[5:]
    assert here.json("forget", "--store", store, "--page", page_id, "--yes")["forgotten"] == 0
    assert here.err == f"note: there is no page '{page_id}'\n"


def test_a_user(here: Here, mixed_store: Path) -> None:
    before = exported(mixed_store)
    forgetting = ("forget", "--store", mixed_store, "--yes", "--user", "user 1")
    assert here.json(*forgetting, "--assistant", "nobody")["forgotten"] == 0
    assert here.err == "note: there is no page of user 'user 1' with assistant 'nobody'\n"
    assert here(*forgetting) == ExitCode.OK
    assert here.out == "forgotten  20 pages\n"
    assert exported(mixed_store) == [page for page in before if page["user_id"] != "user 1"]
    assert here("verify", "--store", mixed_store) == ExitCode.OK
    assert "forgotten  20 pages" in here.out.splitlines()


def test_a_session(here: Here, store: Path) -> None:
    session, *others = here.json("sessions", "--store", store, "--user", "tom")["sessions"]
    forgetting = ("forget", "--store", store, "--yes", "--user", "tom", "--session", session["session_id"])
    assert here.json(*forgetting)["forgotten"] == len(session["page_ids"])
    left = {page["page_id"] for page in exported(store)}
    assert not left & set(session["page_ids"])
    assert left >= {page_id for other in others for page_id in other["page_ids"]}
    assert here.json(*forgetting)["forgotten"] == 0
    assert here.err.startswith(f"note: there is no page of session {session['session_id']} of user 'tom' with ")
    assert here.json(*forgetting, "--assistant", "nobody")["forgotten"] == 0
    assert "'nobody'; this user has pages with another" in here.err


def on_disk(folder: Path, text: bytes) -> bool:
    store, reader = StoreFolder(folder), SegmentReader(StoreFolder(folder))
    frames = [item for number, _ in numbered(store.segments, ".segment") for item in reader.scan(number)]
    reader.close()
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return any(text in data for data in [*files, *(item.body for item in frames if isinstance(item, Frame))])


def test_compacted_the_bytes_are_gone(here: Here, store: Path) -> None:
    forgetting = ("forget", "--store", store, "--user", "tom", "--yes", "--compact")
    assert on_disk(store, b"beagle")
    done = here.json(*forgetting)
    assert done["forgotten"] == 18
    assert done["compaction"]["after"] < done["compaction"]["before"]
    assert not on_disk(store, b"beagle")
    assert here(*forgetting) == ExitCode.OK
    assert [line.split()[0] for line in here.out.splitlines()] == ["forgotten", "segments"]


@pytest.mark.parametrize(
    ("options", "question", "count"),
    [
        (("--user", "user 1"), "forget 20 pages of user 'user 1'? [y/N] ", 20),
        (
            ("--user", "user 2", "--assistant", "helper"),
            "forget 20 pages of user 'user 2' with assistant 'helper'? [y/N] ",
            20,
        ),
    ],
)
def test_on_a_terminal_it_asks(
    here: Here,
    mixed_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    question: str,
    count: int,
) -> None:
    for answer in ("", "n\n", "no\n", "\n", "yessir\n"):
        answer_with(monkeypatch, answer)
        assert here.json("forget", "--store", mixed_store, *options, "--compact")["forgotten"] == 0
        assert question in here.err
        assert "note: nothing was forgotten" in here.err
    answer_with(monkeypatch, " Y\n")
    assert here.json("forget", "--store", mixed_store, *options)["forgotten"] == count
    assert len(exported(mixed_store)) == 60 - count


def test_it_asks_about_a_page_and_a_session_and_not_about_nothing(
    here: Here, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_id = exported(store)[0]["page_id"]
    session = here.json("sessions", "--store", store, "--user", "tom")["sessions"][0]
    number, size = session["session_id"], len(session["page_ids"])
    asked = [
        (("--page", page_id), f"forget 1 page '{page_id}'? [y/N] "),
        (("--user", "tom", "--session", number), f"forget {size} pages of session {number} of user 'tom' with "),
    ]
    for options, question in asked:
        answer_with(monkeypatch, "no\n")
        assert here("forget", "--store", store, *options) == ExitCode.OK
        assert question in here.err
    for nothing in (("--page", "unknown"), ("--user", "tom", "--assistant", "nobody"), ("--user", "nobody")):
        answer_with(monkeypatch, "")
        assert here("forget", "--store", store, *nothing) == ExitCode.OK
        assert "[y/N]" not in here.err
    assert len(exported(store)) == 18


def test_without_a_terminal_it_refuses(here: Here, store: Path) -> None:
    assert here("forget", "--store", store, "--user", "tom") == ExitCode.INPUT
    assert here.err.startswith("error: ")
    assert "add --yes" in here.err
    assert len(exported(store)) == 18


@pytest.mark.parametrize("option", [("--assistant", "a"), ("--session", "1")])
def test_a_page_is_named_alone(here: Here, store: Path, option: tuple[str, str]) -> None:
    page_id = exported(store)[0]["page_id"]
    assert here("forget", "--store", store, "--yes", "--page", page_id, *option) == ExitCode.INPUT
    assert len(exported(store)) == 18


def test_what_was_forgotten_is_told_where_compaction_fails(
    here: Here, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise WorkerError("no model here")

    monkeypatch.setattr(MemoryPipeline, "wait_idle", fails)
    assert here("forget", "--store", store, "--user", "tom", "--yes", "--compact") == ExitCode.WORKER
    note, error = here.err.splitlines()
    assert note == "note: 18 pages forgotten; the bytes are on the disk until the next compaction"
    assert error == "error: no model here"
    assert exported(store) == []


def test_ctrl_c_at_the_question(store: Path) -> None:
    master, terminal = pty.openpty()
    try:
        process = start("forget", "--store", store, "--user", "tom", stdin=terminal, stderr=terminal)
        said = b""
        while b"[y/N] " not in said:
            said += os.read(master, 1000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
    finally:
        os.close(terminal)
        os.close(master)
    assert b"forget 18 pages of user 'tom'?" in said
    assert process.returncode == ExitCode.INTERRUPTED
    assert len(exported(store)) == 18
