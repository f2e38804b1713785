"""Ingesting from a pipe: each line as it comes, for as long as there is somebody who writes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.store.verify import verify_store
from tests.cli.common import PATIENCE_S, Here, exported, records, result_of, start, until, without_ids, write
from tests.cli.test_beside_owner import owner_of
from tests.cli.test_resume import stored


class Ingesting:
    """An ``ingest -`` into which is written what is to be ingested."""

    def __init__(self, store: Path, *options: object, **more: Any) -> None:
        self.process = start("ingest", "-", "--store", store, "--json", *options, stdin=subprocess.PIPE, **more)
        assert self.process.stdin is not None
        self._stdin: IO[str] = self.process.stdin

    def write(self, *lines: object) -> None:
        """Write lines, and what is no line as it is."""
        for line in lines:
            self._stdin.write(line if isinstance(line, str) else f"{json.dumps(line)}\n")
        self._stdin.flush()

    def end(self, number: int = 0) -> dict[str, Any]:
        """End it, by the end of what it reads or by a signal; return the summary that it prints."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        elif number:
            self.process.send_signal(number)
        else:
            self._stdin.close()
        assert self.process.wait(PATIENCE_S) == (128 + number if number else 0), self.said()
        assert self.process.stdout is not None
        summary: dict[str, Any] = json.loads(self.process.stdout.read())
        return summary

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextlib.contextmanager
def ingesting(store: Path, *options: object, **more: Any) -> Iterator[Ingesting]:
    talk = Ingesting(store, *options, **more)
    try:
        yield talk
    finally:
        talk.process.kill()
        with contextlib.suppress(BrokenPipeError):
            talk.process.__exit__(None, None, None)


def follow(store: Path, talk: Ingesting, count: int, first: int = 0) -> None:
    """Write records one by one, each when the one before is stored."""
    for number in range(first, count):
        talk.write(records(count)[number])
        until(lambda number=number: stored(store) == number + 1, f"record {number} is accepted")  # type: ignore[misc]


@pytest.mark.parametrize("number", [0, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_line_is_accepted_when_it_comes_and_the_end_is_in_order(tmp_path: Path, number: int) -> None:
    store = tmp_path / "store"
    with ingesting(store) as talk:
        follow(store, talk, 12)
        summary = talk.end(number)
        assert (summary["read"], summary["accepted"], summary["already_there"]) == (12, 12, 0)
        assert (summary["backlog_pages"] == 0) == (number == 0)
        said = talk.said()
        assert "Traceback" not in said
        assert ("note: 12 pages were accepted and are kept; run the same command again" in said) == bool(number)
    assert not (store / "SOCKET").exists(), "the store was not closed"
    check_piped_again(store, 12, 15)


def check_piped_again(store: Path, kept: int, count: int) -> None:
    """Pipe it again, from its beginning: what is there is passed over, and what is new is followed."""
    with ingesting(store) as talk:
        talk.write(*records(count)[:kept])
        follow(store, talk, count, kept)
        assert talk.end()["accepted"] == count - kept
    assert without_ids(exported(store)) == records(count)
    assert verify_store(store).ok


def test_killed_while_it_follows(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with ingesting(store) as talk:
        follow(store, talk, 7)
        talk.process.kill()
    check_piped_again(store, 7, 9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_anything_has_come(tmp_path: Path, number: int) -> None:
    with ingesting(tmp_path / "store") as talk:
        until(lambda: list(tmp_path.iterdir()) == [] and waits(talk.process.pid), "it waits")
        assert talk.end(number)["read"] == 0
    assert not (tmp_path / "store").exists()


def waits(pid: int) -> bool:
    """Whether a process waits in ``poll``."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in {"7", "73"}


def test_half_a_line_holds_up_none_of_those_before_it(tmp_path: Path) -> None:
    store, told = tmp_path / "store", records(4)
    with ingesting(store) as talk:
        half = json.dumps(told[3])
        talk.write(*told[:3], half[:20])
        until(lambda: stored(store) == 3, "whole lines are accepted")
        talk.write(half[20:])
        assert talk.end()["accepted"] == 4, "the last line needs no end"


def test_a_wrong_line_ends_it_at_once_or_is_left_out(tmp_path: Path) -> None:
    store, told = tmp_path / "store", records(3)
    with ingesting(store) as talk:
        talk.write(*told[:2], "{torn}\n")
        assert talk.process.wait(PATIENCE_S) == ExitCode.INPUT
        said = talk.said()
        assert "stdin, line 3: not valid JSON" in said
        assert "note: 2 pages were accepted and are kept" in said
    with ingesting(store, "--on-error", "skip") as talk:
        talk.write(*told[:2], "{torn}\n", told[2])
        until(lambda: stored(store) == 3, "the line behind it is accepted")
        talk.write({"user_id": "u", "user_input": "x" * 20_000_000, "agent_response": ""})
        talk.write(records(4)[3])
        until(lambda: stored(store) == 4, "the line behind one that is too long is accepted")
        summary = talk.end(signal.SIGTERM)
        assert (summary["accepted"], summary["left_out"]) == (2, 2)


def test_a_wrong_line_before_all_others_is_told_at_once_and_once(tmp_path: Path) -> None:
    with ingesting(tmp_path / "one") as talk:
        talk.write("{torn}\n")
        assert talk.process.wait(PATIENCE_S) == ExitCode.INPUT
        assert "stdin, line 1: not valid JSON" in talk.said()
    store, kept = tmp_path / "store", tmp_path / "kept"
    for count, fresh in ((2, 2), (3, 1)):
        with ingesting(store, "--on-error", "quarantine", "--quarantine", kept) as talk:
            talk.write("{torn}\n", "[]\n")
            until(lambda: kept.exists() and kept.read_text().count("\n") >= 2, "both are kept")
            talk.write(*records(count), "{torn, too}\n")
            until(lambda count=count: stored(store) == count, "the records are accepted")  # type: ignore[misc]
            told = count + 1
            until(lambda told=told: kept.read_text().count("\n") == told, "another one is kept")  # type: ignore[misc]
            assert talk.end(signal.SIGTERM)["accepted"] == fresh
    assert without_ids(exported(store)) == records(3)
    assert kept.read_text().count("\n") == 4, "each is kept once: the last stands in another place"


def test_a_file_that_is_followed(tmp_path: Path) -> None:
    store, path = tmp_path / "store", write(tmp_path / "chat.jsonl", records(5))
    with subprocess.Popen(["tail", "-n", "+1", "-f", path], stdout=subprocess.PIPE) as tail:
        process = start("ingest", "-", "--store", store, "--json", stdin=tail.stdout)
        until(lambda: stored(store) == 5, "what was there is accepted")
        for count in (6, 8):
            with path.open("a") as file:
                file.writelines(f"{json.dumps(record)}\n" for record in records(count)[stored(store) :])
            until(lambda count=count: stored(store) == count, "what is new is accepted")  # type: ignore[misc]
        tail.kill()
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert json.loads(out)["accepted"] == 8
    assert result_of("ingest", path, "--store", store)["accepted"] == 0, "read as a file it is the same source"


def test_beside_an_owner(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with owner_of(store), ingesting(store) as talk:
        follow(store, talk, 6)
        assert talk.end(signal.SIGHUP)["accepted"] == 6
    check_piped_again(store, 6, 8)


def test_documents_and_files_that_are_directed_there(tmp_path: Path, here: Here) -> None:
    store = tmp_path / "store"
    with ingesting(store, "--user", "ann") as talk:
        document = json.dumps([{"uuid": "k", "chat_messages": [{"sender": "human", "text": "How?"}]}], indent=1)
        talk.write(document[:30])
        talk.write(document[30:])
        assert talk.end()["accepted"] == 1
    with write(tmp_path / "f", records(3)).open() as file:
        process = start("ingest", "-", "--store", store, "--json", stdin=file)
        assert json.loads(process.communicate(timeout=PATIENCE_S)[0])["accepted"] == 3
    assert here("ingest", "-", "-", "--store", store) == ExitCode.INPUT
    assert "- is named twice" in here.err


def test_without_stdin_it_says_so(tmp_path: Path) -> None:
    process = start("ingest", "-", "--store", tmp_path / "store", preexec_fn=partial(os.close, 0))
    assert "there is no stdin" in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == ExitCode.INPUT
