"""``ingest --dry-run`` says what ``ingest`` would do, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli.exits import ExitCode
from tests.cli.common import Here, Record, records, start, write
from tests.cli.test_beside_owner import owner_of
from tests.cli.test_ingest import chatgpt

Paths = list[Path]


def grown(folder: Path) -> tuple[Paths, Paths, int]:
    before, after = write(folder / "before", records(7)), write(folder / "after", records(20))
    return [before], [after], 7


def not_new(folder: Path) -> tuple[Paths, Paths, int]:
    path = write(folder / "f", records(7))
    return [path], [path, path], 14


def twice(folder: Path) -> tuple[Paths, Paths, int]:
    path = write(folder / "f", records(7))
    return [], [path, path], 7


def other(folder: Path) -> tuple[Paths, Paths, int]:
    return [write(folder / "before", records(7))], [write(folder / "after", [*records(3), *records(9)[4:]])], 0


def wrong_before(folder: Path) -> tuple[Paths, Paths, int]:
    lines: list[Record | str] = [*records(5), "{torn", *records(9)[5:]]
    path = write(folder / "before", lines)
    return [path], [write(folder / "after", [*lines, "{torn, too", *records(3)])], 9


def named(folder: Path) -> tuple[Paths, Paths, int]:
    before = [record | {"page_id": f"p{number}"} for number, record in enumerate(records(6))]
    again = [{**record, "metadata": {"again": 1}} for record in before]
    others = {**again[0], "page_id": "p1"}, {**again[0], "page_id": "new"}, {**again[1], "page_id": "new"}
    return [write(folder / "before", before)], [write(folder / "after", [*again, *others, again[0]])], 7


def exported(folder: Path) -> tuple[Paths, Paths, int]:
    before, after = folder / "before", folder / "after"
    before.write_text(chatgpt(4, 2))
    after.write_text(chatgpt(6, 2, 3))
    return [before], [after], 3


def nothing_before(folder: Path) -> tuple[Paths, Paths, int]:
    return [], [write(folder / "f", [*records(5), "{torn", {**records(1)[0], "user_input": "x" * 3000}])], 0


CASES = (grown, not_new, twice, other, wrong_before, named, exported, nothing_before)


def content(store: Path) -> dict[str, bytes]:
    files = [path for path in store.rglob("*") if path.is_file() and path.parent.name != "pins"]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_would_become_of_the_records(
    here: Here, tmp_path: Path, case: Callable[[Path], tuple[Paths, Paths, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOS_PIPELINE_STORE__MAX_PAGE_BYTES", "2000")
    store = tmp_path / "store"
    before, paths, there = case(tmp_path)
    command = ("ingest", *paths, "--store", store, "--user", "ann", "--on-error", "skip", "--json")
    if before:
        here("ingest", *before, "--store", store, "--user", "ann", "--on-error", "skip")
    was = content(store)
    code = here(*command, "--dry-run")
    told: dict[str, Any] = json.loads(here.out)
    assert content(store) == was
    assert store.exists() == bool(before)
    assert told["already_there"] == there
    assert here(*command) == code
    done = json.loads(here.out)
    assert [told[name] for name in ("accepted", "left_out")] == [done[name] for name in ("accepted", "left_out")]
    assert sum(told["users"].values()) == told["accepted"]
    here(*command, "--dry-run")
    assert json.loads(here.out)["accepted"] == 0


@pytest.mark.slow
def test_beside_an_owner(here: Here, tmp_path: Path) -> None:
    store, path = tmp_path / "store", write(tmp_path / "f", records(9))
    for settings in ({}, {"MOS_PIPELINE_RUNTIME__SOCKET": "false"}):
        with owner_of(store, **settings):
            if not settings:
                here.json("ingest", write(tmp_path / "part", records(4)), "--store", store)
            told = here.json("ingest", path, "--store", store, "--dry-run")
            assert (told["accepted"], told["already_there"]) == (5, 4)
            assert here.err == ""


def test_for_a_store_of_another_model(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "f", records(4))
    here.json("ingest", path, "--store", tmp_path / "store")
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__BACKEND", "torch")
    assert here.json("ingest", path, "--store", tmp_path / "store", "--dry-run")["already_there"] == 4


def test_for_people_and_from_a_pipe(here: Here, tmp_path: Path) -> None:
    store = tmp_path / "store"
    here.json("ingest", write(tmp_path / "part", records(4)), "--store", store)
    process = start("ingest", "-", "--store", store, "--dry-run", stdin=-1)
    out, _ = process.communicate("".join(f"{json.dumps(record)}\n" for record in records(9)))
    assert process.returncode == ExitCode.OK
    assert out.splitlines()[:3] == [
        "would be accepted  5 pages of 3 users",
        "already there      4",
        "left out           0",
    ]


def test_the_rest_of_a_store_is_not_taken_for_none(here: Here, tmp_path: Path) -> None:
    path, store = write(tmp_path / "f", records(4)), tmp_path / "store"
    here.json("ingest", path, "--store", store)
    (store / "MANIFEST").unlink()
    for command in (("ingest", path, "--store", store), ("ingest", path, "--store", store, "--dry-run")):
        assert here(*command) == ExitCode.STORE
        assert "MANIFEST: it is missing, though" in here.err


def test_a_file_in_the_place_of_the_store(here: Here, tmp_path: Path) -> None:
    path = write(tmp_path / "f", records(4))
    for command in (("ingest", path, "--store", path), ("ingest", path, "--store", path, "--dry-run")):
        assert here(*command) == ExitCode.STORE
    assert here("doctor", "--store", path) == ExitCode.STORE
    assert "it is no folder" in here.out
