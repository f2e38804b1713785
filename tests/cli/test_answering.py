"""``respond`` and ``chat``: one question, a pipe of them, and a talk in a terminal, alone and beside an owner."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline, ResponseStream
from mos_pipeline.cli import chat
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.messages import QUOTES
from tests.cli.common import PATIENCE_S, Here, environment, exported, start, until
from tests.cli.test_beside_owner import owner_of
from tests.faults.processes import session
from tests.support import signals_heeded

BEAGLE = "I adopted a beagle named Rex."
QUESTION = "which beagle did I adopt?"


@pytest.fixture
def store(telling_store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(telling_store, tmp_path / "store")


def of_tom(store: Path) -> tuple[object, ...]:
    return ("--store", store, "--user", "tom")


def test_a_question_is_answered_and_the_exchange_kept(here: Here, store: Path) -> None:
    assert here("respond", QUESTION, *of_tom(store), "--metadata", '{"channel": "web"}') == ExitCode.OK, here.err
    assert BEAGLE in here.out
    assert here.out.endswith("\n")
    assert not here.err
    (page,) = exported(store)[18:]
    assert (page["user_input"], page["agent_response"]) == (QUESTION, here.out.strip("\n"))
    assert page["metadata"] == {"channel": "web", QUOTES: True}


def test_as_json_and_without_being_kept(here: Here, store: Path) -> None:
    answer = here.json("respond", QUESTION, *of_tom(store), "--no-add", "-k", "2")
    assert BEAGLE in answer["text"]
    assert (answer["page_id"], answer["complete"], answer["provider"]) == (None, True, "extractive")
    assert len(answer["retrieved"]["pages"]) == 2
    assert len(exported(store)) == 18


def test_a_store_is_made_for_the_first_question(here: Here, tmp_path: Path) -> None:
    assert here("respond", QUESTION, *of_tom(tmp_path / "new")) == ExitCode.OK
    assert "nothing to be quoted" in here.out
    assert here("respond", "", "--store", tmp_path / "new", "--user", "") == ExitCode.INPUT
    assert here("respond", QUESTION, *of_tom(tmp_path / "new"), "--metadata", "[1]") == ExitCode.USAGE


def test_a_model_s_escape_sequences_do_not_reach_the_terminal(
    here: Here, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MemoryPipeline.respond_stream

    def with_model(self: MemoryPipeline, *args: object, **options: object) -> ResponseStream:
        pieces = ["\x1b[31mRe", "x\u202e.\n", "\tReally.\x07"]
        return whole(self, *args, **options, model=lambda *_: iter(pieces))  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryPipeline, "respond_stream", with_model)
    assert here("respond", QUESTION, *of_tom(store)) == ExitCode.OK
    assert here.out == "[31mRex.\n Really.\n"


def test_a_pipe_of_questions(store: Path) -> None:
    process = start("chat", *of_tom(store), "--json", stdin=subprocess.PIPE)
    out, err = process.communicate(f"{QUESTION}\n\n  \nand the last without an end", timeout=PATIENCE_S)
    assert (process.returncode, err) == (ExitCode.OK, "")
    answers = [json.loads(line) for line in out.splitlines()]
    assert BEAGLE in answers[0]["text"]
    assert [page["user_input"] for page in exported(store)[18:]] == [QUESTION, "and the last without an end"]


def test_each_line_of_a_pipe_is_answered_when_it_comes(store: Path) -> None:
    process = start("chat", *of_tom(store), "--json", stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    for question in (QUESTION, "and what is it called?"):
        process.stdin.write(f"{question}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["complete"]
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK


def test_one_bad_question_ends_no_talk(here: Here, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOS_PIPELINE_STORE__MAX_PAGE_BYTES", "2000")
    monkeypatch.setattr(chat, "_lines", lambda *_: iter(["x" * 3000, QUESTION]))
    assert here("chat", *of_tom(store)) == ExitCode.OK
    assert "error: a page of user 'tom' was not accepted" in here.err
    assert BEAGLE in here.out
    assert len(exported(store)) == 19


class Talk:
    """A chat in a terminal of its own."""

    def __init__(self, store: Path) -> None:
        self.controller, terminal = pty.openpty()
        self.process = start(
            "chat",
            *of_tom(store),
            **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),  # type: ignore[arg-type]
            preexec_fn=_into_terminal,
        )
        os.close(terminal)
        os.set_blocking(self.controller, False)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def sees(self, text: str) -> bool:
        with contextlib.suppress(OSError):  # nothing is there yet, or the other end is gone
            self.shown += os.read(self.controller, 1 << 16).decode(errors="replace")
        return text in self.shown

    def end(self) -> int:
        code: int = self.process.wait(PATIENCE_S)
        self.sees("")
        os.close(self.controller)
        until(lambda: session(self.process.pid) == [], "no child is left")  # the resource tracker ends after it
        return code


def _into_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(("key", "code"), [("\x04", ExitCode.OK), ("\x03", ExitCode.INTERRUPTED)])
def test_a_talk_in_a_terminal_ends_in_order(store: Path, key: str, code: ExitCode) -> None:
    talk = Talk(store)
    try:
        until(lambda: talk.sees("> "), "it asks")
        talk.type(f"{QUESTION}\n")
        until(lambda: talk.sees(BEAGLE) and talk.shown.count("> ") == 2, "it answers, and asks again")
        talk.type(key)
        assert talk.end() == code
    finally:
        talk.process.kill()
        talk.process.wait()
    assert "Traceback" not in talk.shown
    assert not (store / "SOCKET").exists(), "it did not close the store"
    assert [page["user_input"] for page in exported(store)[18:]] == [QUESTION]


SLOW = """
import signal, sys, time
from mos_pipeline import MemoryPipeline
from mos_pipeline.cli import main

def model(messages, limits):
    yield "You adopted"
    yield " Rex, and"
    signal.pause()  # for ever

whole = MemoryPipeline.respond_stream
MemoryPipeline.respond_stream = lambda self, *args, **more: whole(self, *args, **more, model=model)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_an_answer_keeps_what_was_shown(store: Path, number: signal.Signals) -> None:
    with signals_heeded():
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, "chat", *map(str, of_tom(store))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
    with process:
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{QUESTION}\n".encode())
            process.stdin.flush()
            shown = b""
            while not shown.endswith(b"and"):
                shown += process.stdout.read(1)
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, err) == (128 + number, b"interrupted\n")
    assert not (store / "SOCKET").exists(), "it did not close the store"
    (page,) = exported(store)[18:]
    assert (page["user_input"], page["agent_response"]) == (QUESTION, "You adopted Rex, and")


def test_a_killed_talk_keeps_what_was_said(store: Path) -> None:
    process = start("chat", *of_tom(store), "--json", stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{QUESTION}\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert [(page["page_id"], page["agent_response"]) for page in exported(store)[18:]] == [
        (answer["page_id"], answer["text"])
    ]


def test_beside_an_owner_it_answers(here: Here, store: Path) -> None:
    with owner_of(store) as owner:
        assert here("respond", QUESTION, *of_tom(store)) == ExitCode.OK, here.err
        assert BEAGLE in here.out
        process = start("chat", *of_tom(store), stdin=subprocess.PIPE)
        out, err = process.communicate(f"{QUESTION}\n", timeout=PATIENCE_S)
        assert (process.returncode, err) == (ExitCode.OK, "")
        assert BEAGLE in out
        os.kill(owner.pid, signal.SIGKILL)
    assert [page["user_input"] for page in exported(store)[18:]] == [QUESTION] * 2
