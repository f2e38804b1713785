"""Ended at any moment, an ingestion that is run again leaves every page once and in order."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.errors import StoreError
from mos_pipeline.messages import SourceMark
from mos_pipeline.store.verify import verify_store
from tests.cli.common import Here, exported, records, result_of, start, until, without_ids, write
from tests.support import open_fake, unpack
from tests.test_upgrade import ARCHIVE

COUNT = 1500
# A low mark keeps the reading at the pace of a slow model, so that there is a middle to be ended in.
SLOW = {"MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "6", "MOS_PIPELINE_BACKLOG__MAX_BYTES": "60000"}
LARGE_BACKLOG = {"MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "20"}


def stored(store: Path) -> int:
    try:
        return verify_store(store).pages
    except StoreError:
        return 0


def end(process: subprocess.Popen[str], *numbers: int) -> str:
    """Send signals, Ctrl-C and SIGHUP to the whole group as a terminal does; return what the command said."""
    for number in numbers:
        if number in {signal.SIGINT, signal.SIGHUP}:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    return process.communicate(timeout=90)[1]


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGINT,), ExitCode.INTERRUPTED),
        ((signal.SIGINT, signal.SIGINT, signal.SIGTERM), ExitCode.INTERRUPTED),
        ((signal.SIGTERM,), ExitCode.TERMINATED),
        ((signal.SIGTERM, signal.SIGTERM), ExitCode.TERMINATED),
        ((signal.SIGHUP,), ExitCode.HANGUP),
        ((signal.SIGHUP, signal.SIGHUP, signal.SIGTERM), ExitCode.HANGUP),
    ],
)
def test_a_signal_while_reading(tmp_path: Path, numbers: tuple[int, ...], code: int) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(COUNT)), tmp_path / "store"
    process = start("ingest", path, "--store", store, settings=SLOW)
    until(lambda: stored(store) > COUNT // 10, "a tenth is stored")
    said = end(process, *numbers).splitlines()
    assert process.returncode == code, said
    kept = stored(store)
    assert COUNT // 10 < kept < COUNT
    note = f"note: {kept:,} pages were accepted and are kept; run the same command again to go on from there"
    assert [line for line in said if line in {note, "interrupted"}] == [note, "interrupted"]
    assert not [line for line in said if "Traceback" in line or line.startswith("error")]
    check_goes_on(path, store, kept)


def test_sigkill_while_reading(tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(COUNT)), tmp_path / "store"
    kill_when_stored(path, store, COUNT // 10)
    kill_when_stored(path, store, COUNT // 4)
    kept = stored(store)
    assert COUNT // 4 < kept < COUNT
    check_goes_on(path, store, kept)


def kill_when_stored(path: Path, store: Path, count: int) -> None:
    process = start("ingest", path, "--store", store, settings=SLOW)
    until(lambda: stored(store) > count, "a part is stored")
    process.kill()
    process.communicate(timeout=90)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_an_end_while_the_model_works(tmp_path: Path, number: int) -> None:
    count = 600
    path, store = write(tmp_path / "pages.jsonl", records(count)), tmp_path / "store"
    process = start("ingest", path, "--store", store, settings=LARGE_BACKLOG)
    until(lambda: stored(store) == count, "all is stored")
    (os.killpg if number == signal.SIGHUP else os.kill)(process.pid, number)
    process.communicate(timeout=90)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    check_goes_on(path, store, count, count)


def check_goes_on(path: Path, store: Path, kept: int, count: int = COUNT) -> None:
    """Run the command again: it must take what is missing, and work off everything."""
    result = result_of("ingest", path, "--store", store)
    assert (result["read"], result["accepted"], result["backlog_pages"]) == (count - kept, count - kept, 0)
    assert result["passed_bytes"] > 0
    assert without_ids(exported(store)) == records(count)
    assert verify_store(store).ok


def test_files_that_the_first_version_read_are_gone_on_with(tmp_path: Path, here: Here) -> None:
    """Its marks: the digest of the whole file with its length, and the number of the line."""
    path, store = write(tmp_path / "pages.jsonl", ["", *records(9)]), tmp_path / "store"
    unpack(ARCHIVE, store)
    content = path.read_bytes()
    name = hashlib.sha256(content).digest()[:16] + len(content).to_bytes(8, "little")
    with open_fake(store, workers=False) as memory:
        before = memory.stats().pages
        for line, record in enumerate(records(4), 1):
            memory.add(**record, source=SourceMark(name, line))
    for count, fresh in ((9, 5), (9, 0), (12, 3)):
        write(path, ["", *records(count)])
        result = here.json("ingest", path, "--store", store)
        assert (result["read"], result["accepted"]) == (count, fresh)
    assert without_ids(exported(store)[before:]) == records(12)


EXPORT: list[dict[str, Any]] = [
    {
        "uuid": f"talk {talk}",
        "chat_messages": [
            {"sender": ("human", "assistant")[number % 2], "text": f"talk{talk} message{number}"}
            for number in range(40)
        ],
    }
    for talk in range(50)
]
LAYOUTS = {
    "export": lambda: json.dumps(EXPORT).encode(),
    "compressed": lambda: gzip.compress(b"".join(json.dumps(as_messages(talk)).encode() + b"\n" for talk in EXPORT)),
}


def as_messages(talk: dict[str, Any]) -> dict[str, Any]:
    turns = [{"from": one["sender"], "value": one["text"]} for one in talk["chat_messages"]]
    return {"id": talk["uuid"], "conversations": turns}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sigkill_within_a_conversation(tmp_path: Path, layout: str) -> None:
    path, store = tmp_path / "talks", tmp_path / "store"
    path.write_bytes(LAYOUTS[layout]())
    process = start("ingest", path, "--store", store, "--user", "ann", settings=SLOW)
    until(lambda: stored(store) > 150, "some are stored")
    process.kill()
    process.communicate(timeout=90)
    kept = stored(store)
    assert 150 < kept < 1000
    result = result_of("ingest", path, "--store", store, "--user", "ann")
    assert result["accepted"] == 1000 - kept
    said = [(page["user_input"], page["agent_response"]) for page in exported(store)]
    texts = [[one["text"] for one in talk["chat_messages"]] for talk in EXPORT]
    assert said == [pair for talk in texts for pair in zip(talk[::2], talk[1::2], strict=True)]
