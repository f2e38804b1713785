"""Backups of a store in use: whole or recognisable as not whole, with every page accepted before, exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import InputError, MemoryPipeline, StoreDamagedError, StoreError, StoreFullError
from mos_pipeline.cli import main
from mos_pipeline.store import backup as backup_module
from mos_pipeline.store.backup import backup_store, restore_store
from mos_pipeline.store.folder import StoreFolder, numbered
from mos_pipeline.store.manifest import UNFINISHED
from mos_pipeline.store.pins import Pin
from mos_pipeline.store.verify import verify_store
from tests.cli.common import environment
from tests.faults.common import PATIENCE_S, Load, check_consistent, check_found, fill
from tests.support import all_pages, open_fake, page_text

# Small, so that pages wander through many journals and segments while they are copied.
SMALL: dict[str, Any] = {
    "store__journal_bytes": 65536,
    "store__segment_bytes": 65536,
    "store__frame_pages": 4,
    "store__flush_interval_s": 0.02,
    "llm__processes": 1,
}


def check_backup(path: Path, before: dict[str, list[str]]) -> None:
    """Check that a backup holds what was accepted ``before``, by user, each once and in order."""
    report = verify_store(path)
    assert report.ok, report.problems
    with open_fake(path, workers=False) as memory:
        pages = all_pages(memory)
        assert not memory.stats().damage
        assert len({page.page_id for page in pages}) == len(pages) == report.pages
        for user, ids in before.items():
            found = [page.page_id for page in pages if page.user_id == user]
            assert found[: len(ids)] == ids, f"{user}: a page is missing, doubled or out of order"


@pytest.mark.slow
def test_backups_under_load_hold_what_was_accepted_before(tmp_path: Path) -> None:
    rng = random.Random(5)
    with open_fake(tmp_path / "store", **SMALL) as memory:
        with Load(memory, 5, threads=2, pause_s=0.05) as load:
            copies = []
            for number in range(5):
                time.sleep(rng.random() * 0.3)
                if number == 3:
                    memory.forget("user 0 0")
                    load.accepted.pop("user 0 0", None)
                    memory.compact(PATIENCE_S)
                before = {user: list(ids) for user, ids in load.accepted.items() if user != "user 0 0"}
                memory.backup(tmp_path / f"copy{number}")
                copies.append(before)
        assert sum(map(len, copies[-1].values())) > 50
        for number, before in enumerate(copies):
            check_backup(tmp_path / f"copy{number}", before)
    with open_fake(tmp_path / "copy4", **SMALL) as memory:
        memory.wait_idle(PATIENCE_S)
        check_consistent(memory)
        check_found(memory, rng.sample(all_pages(memory), 3))
        assert memory.verify().ok


MOMENTS = [
    "amid the first look at journals",
    "before the pin",
    "between pin and segments",
    "after the segments",
    "amid the last look at journals",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_whatever_the_owner_does_amid_the_looks_the_copy_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Pages wander through journals that come and go, into segments, and segments are replaced."""
    open_segments, take = backup_module._open_segments, Pin.take
    with open_fake(tmp_path / "store", **SMALL) as memory:
        fill(memory, 40)
        memory.forget("ben")
        memory.flush(timeout=PATIENCE_S)  # there is a segment to be replaced
        fill(memory, 20, users=("ann", "cem"), first=40)
        before = {user: [page.page_id for page in all_pages(memory, user)] for user in ("ann", "cem")}

        looks = iter([MOMENTS[0], MOMENTS[-1]])
        gone = set[Path]()

        def listed(folder: Path, suffix: str) -> list[tuple[int, Path]]:
            found = numbered(folder, suffix)
            churn(next(looks, "later"))
            gone.update(path for _, path in found if not path.exists())
            return found

        def churn(now: str) -> None:
            if now != moment or len(all_pages(memory, "dan")):
                return  # the second look is left in peace
            for number in range(1000, 1400):
                memory.add("dan", *page_text(number))
            memory.flush(timeout=PATIENCE_S)
            memory.compact(PATIENCE_S)

        def pinned(folder: StoreFolder) -> Pin:
            churn("before the pin")
            return take(folder)

        def opened(*look: Any) -> Any:
            churn("between pin and segments")
            found = open_segments(*look)
            churn("after the segments")
            return found

        monkeypatch.setattr(Pin, "take", pinned)
        monkeypatch.setattr(backup_module, "_open_segments", opened)
        monkeypatch.setattr(backup_module, "numbered", listed)
        memory.backup(tmp_path / "copy")
        assert all_pages(memory, "dan"), "the owner did nothing meanwhile"
        assert bool(gone) == ("look" in moment), "a journal that was listed can't be opened any more"
    check_backup(tmp_path / "copy", before)


def test_where_journals_come_and_go_between_all_looks_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that were in such a journal alone might be missing: there is no copy rather than one with a hole."""
    open_segments, looks = backup_module._open_segments, list[int]()
    with open_fake(tmp_path / "store", **SMALL) as memory:
        fill(memory, 5)

        def opened(*look: Any) -> Any:
            found = open_segments(*look)
            looks.append(len(looks))
            for number in range(400):  # six journals full
                memory.add("dan", f"{number} " + "x" * 1000, "")
            memory.flush(timeout=PATIENCE_S)
            return found

        monkeypatch.setattr(backup_module, "LOOKS", 3)
        monkeypatch.setattr(backup_module, "_open_segments", opened)
        with pytest.raises(StoreError, match="change too fast to be copied; try again"):
            memory.backup(tmp_path / "copy")
        assert looks == [0, 1, 2]
        assert not (tmp_path / "copy").exists()
        monkeypatch.setattr(backup_module, "_open_segments", open_segments)
        memory.backup(tmp_path / "copy")
        pages = {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}
    check_backup(tmp_path / "copy", pages)


def test_a_backup_goes_its_own_way(tmp_path: Path) -> None:
    with open_fake(tmp_path / "store", **SMALL) as memory:
        fill(memory, 60)
        memory.wait_idle(PATIENCE_S)
        pages = all_pages(memory)
        sessions = memory.sessions("ann", limit=100)
        memory.backup(tmp_path / "copy")
        memory.forget("ann")
        memory.compact(PATIENCE_S)
    restore_store(tmp_path / "copy", tmp_path / "again")
    with open_fake(tmp_path / "copy", **SMALL) as memory:
        fill(memory, 30, first=100)
        memory.wait_idle(PATIENCE_S)
    with open_fake(tmp_path / "again", workers=False, **SMALL) as memory:
        assert all_pages(memory) == pages
        assert [one.page_ids for one in memory.sessions("ann", limit=100)] == [one.page_ids for one in sessions]
    assert verify_store(tmp_path / "store").ok


OWNER = """
import sys
from mos_pipeline import MemoryPipeline
from tests.support import page_text
store, copy, first = sys.argv[1:]
with MemoryPipeline.open(store, store__segment_bytes=65536, store__flush_interval_s=0.02) as memory:
    for number in range(int(first), int(first) + 60):
        memory.add("tom", *page_text(number))
    memory.flush()
    memory.backup(copy + "-whole")
    print("begun", flush=True)
    memory.backup(copy)
    print("done", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_an_owner_that_is_killed_amid_a_backup_leaves_both_recognisable(tmp_path: Path) -> None:
    rng, half = random.Random(7), 0
    with open_fake(tmp_path / "store", workers=False, **SMALL) as memory:
        for number in range(1000, 1400):
            memory.add("tom", *page_text(number))
    for attempt in range(3):
        copy = tmp_path / f"copy{attempt}"
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path / "store"), str(copy), str(attempt * 100)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            cwd=Path(__file__).parents[2],
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            while not (copy / "MANIFEST").exists():
                time.sleep(0.0001)
            time.sleep(rng.random() * 0.01 * attempt)
            process.kill()
        if (copy / "MANIFEST").read_bytes() == UNFINISHED:
            half += 1
            with pytest.raises(StoreDamagedError, match="never finished"):
                restore_store(copy, tmp_path / "restored")
            with pytest.raises(StoreDamagedError, match="never finished"):
                open_fake(copy, workers=False)
        else:
            check_backup(copy, {})
        with open_fake(tmp_path / "store", workers=False) as memory:
            assert len(all_pages(memory)) == 400 + 60 * (attempt + 1)
            check_backup(tmp_path / f"copy{attempt}-whole", {"tom": [page.page_id for page in all_pages(memory)]})
            assert memory.verify().ok
    assert half, "no backup was broken off"


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_fake(tmp_path / "store", workers=False) as memory:
        fill(memory, 5)

        def full(*_: object) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patch:
            patch.setattr(backup_module, "write_all", full)
            with pytest.raises(StoreFullError):
                memory.backup(tmp_path / "new" / "copy")
        assert not (tmp_path / "new" / "copy").exists()
        (tmp_path / "empty").mkdir()
        memory.backup(tmp_path / "empty")
        assert verify_store(tmp_path / "empty").pages == 5


def test_what_can_not_be_copied_or_restored_is_refused(tmp_path: Path) -> None:
    with open_fake(tmp_path / "store", workers=False) as memory:
        fill(memory, 5)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        for target, words in (
            ("full", "not empty"),
            ("store", "lies in the store"),
            ("store/copy", "lies in the store"),
            ("full/file", "not a folder"),
        ):
            with pytest.raises(InputError, match=words):
                memory.backup(tmp_path / target)
        memory.backup(tmp_path / "copy")
        with pytest.raises(InputError, match="not empty"):
            restore_store(tmp_path / "copy", tmp_path / "full")
    with pytest.raises(StoreError, match="no backup here"):
        restore_store(tmp_path / "full", tmp_path / "new")
    with pytest.raises(StoreError, match="no store here"):
        backup_store(tmp_path / "nowhere", tmp_path / "new")
    (journal,) = (tmp_path / "copy" / "journal").iterdir()
    data = bytearray(journal.read_bytes())
    data[40] ^= 1
    journal.write_bytes(data)
    with pytest.raises(StoreDamagedError, match="checksum is wrong"):
        restore_store(tmp_path / "copy", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_commands_and_a_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, copy, again = tmp_path / "store", tmp_path / "copy", tmp_path / "again"
    with open_fake(store, workers=False) as memory:
        fill(memory, 5)
        assert main(["backup", str(copy), "--store", str(store)]) == 0
        assert main(["restore", str(copy), "--store", str(again), "--json"]) == 0
        assert '"bytes": ' in capsys.readouterr().out
        assert main(["restore", str(copy), "--store", str(again)]) == 3
        with MemoryPipeline.open(store, read_only=True, workers=False) as reader:
            reader.backup(tmp_path / "by reader")
        pages = all_pages(memory)
    for path in (again, tmp_path / "by reader"):
        with open_fake(path, workers=False) as memory:
            assert all_pages(memory) == pages
