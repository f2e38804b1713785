"""Ingesting beside an owner, when either of them dies, and when others add or read the same meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.service.client import RemoteMemory
from mos_pipeline.store.verify import verify_store
from tests.cli.common import PATIENCE_S, exported, records, result_of, start, until, without_ids, write
from tests.cli.test_beside_owner import owner_of
from tests.cli.test_resume import stored

pytestmark = pytest.mark.slow

COUNT = 4000
# A low mark keeps the reading at the pace of a slow model, so that there is a middle to be ended in.
SLOW = {"MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "2", "MOS_PIPELINE_BACKLOG__MAX_BYTES": "60000"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "pages.jsonl", records(COUNT))


def check(path: Path, store: Path) -> None:
    """Check that what is missing is taken, and that every page is there once and in order."""
    result = result_of("ingest", path, "--store", store, "--no-wait")
    assert result["read"] == result["accepted"]
    assert without_ids(exported(store)) == records(COUNT)
    assert verify_store(store).ok


def test_an_owner_that_is_killed_while_a_file_is_read_costs_nothing_accepted(path: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with owner_of(store, **SLOW) as owner:
        process = start("ingest", path, "--store", store)
        until(lambda: stored(store) > COUNT // 8, "a part is stored")
        owner.kill()
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out) == (ExitCode.STORE, "")
    note, error = [line for line in err.splitlines() if line.startswith(("note: ", "error: "))]
    told = int(note.split()[1].replace(",", ""))
    kept = stored(store)
    assert COUNT // 8 < told <= kept <= told + 64, "what was answered for is kept"
    assert "run the same command again to go on from there" in note
    assert f"process {owner.pid} went away" in error, error
    check(path, store)


def test_clients_that_are_killed_while_they_read_leave_each_page_once(path: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with owner_of(store, **SLOW):
        for part in (10, 5, 3):
            process = start("ingest", path, "--store", store)
            until(lambda part=part: stored(store) > COUNT // part, "a part is stored")  # type: ignore[misc]
            process.kill()
            process.communicate(timeout=PATIENCE_S)
        assert stored(store) < COUNT
        check(path, store)


def test_a_client_beside_a_full_backlog_can_be_ended(path: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    stuck = {**SLOW, "MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "60000"}
    with owner_of(store, **stuck) as owner:
        process = start("ingest", path, "--store", store, "--json")
        until(lambda: stored(store) > 50, "the backlog is full")
        process.terminate()
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == ExitCode.TERMINATED
        assert json.loads(out)["accepted"] == stored(store)
        owner.kill()
    check(path, store)


@contextlib.contextmanager
def adding(store: Path) -> Iterator[list[str]]:
    """Somebody else who adds pages to the same owner."""
    stop, added = threading.Event(), list[str]()

    def add() -> None:
        with RemoteMemory(store) as memory:
            while not stop.wait(0.001):
                added.append(memory.add("another", "noise", ""))

    thread = threading.Thread(target=add)
    thread.start()
    try:
        yield added
    finally:
        stop.set()
        thread.join()


def test_what_others_add_or_read_meanwhile_is_not_counted(path: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with owner_of(store):
        with adding(store) as others:
            readers = [start("ingest", path, "--store", store, "--no-wait", "--json") for _ in range(3)]
            results = [json.loads(reader.communicate(timeout=PATIENCE_S)[0]) for reader in readers]
        assert others
        assert sum(result["accepted"] for result in results) == COUNT
        for result in results:
            assert result["accepted"] + result["already_there"] == result["read"] <= COUNT
        pages = without_ids(exported(store))
    assert [page for page in pages if page["user_id"] != "another"] == records(COUNT)
    assert len(pages) == COUNT + len(others)
