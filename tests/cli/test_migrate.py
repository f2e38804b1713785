from __future__ import annotations

import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.legacy.folder import LegacyFolder
from tests.cli.common import PATIENCE_S, Here, result_of, run, start, until
from tests.legacy.common import Json, fact, long_term, memory_of, mid_page, mid_term, put, session, short_page, tom
from tests.support import open_fake

USERS = [f"user {number}" for number in range(3)]


def many(root: Path) -> Path:
    """Write a folder of three users with 45 pages in 9 sessions, 5 more pages, and knowledge each."""
    for index, user in enumerate(USERS):
        first = index * 1000
        sessions = [
            session(f"s{at}", [mid_page(first + 5 * at + number, analyzed=at % 2 == 0) for number in range(5)])
            for at in range(9)
        ]
        put(root, f"users/{user}/mid_term.json", mid_term(*sessions))
        put(root, f"users/{user}/short_term.json", [short_page(first + 100 + number) for number in range(5)])
        facts = [fact(f"{user} likes thing{number}") for number in range(5)]
        put(root, f"users/{user}/long_term_user.json", long_term(user, f"{user} is very fond of all things.", facts))
    return root


def told(store: Path) -> dict[str, Json]:
    """Return what a store tells of all users."""
    with open_fake(store) as memory:
        assert memory.verify().ok
        memory.wait_idle(PATIENCE_S)
        return {user: memory_of(memory, user, "default_assistant_profile") for user in memory.users()}


def test_a_report_for_people_and_one_for_machines(here: Here, tmp_path: Path) -> None:
    legacy, store = tom(tmp_path / "legacy"), tmp_path / "store"
    assert here("migrate", legacy, "--store", store) == ExitCode.OK
    rows = dict(line.split("  ", 1) for line in here.out.splitlines())
    shown = {name: value.strip() for name, value in rows.items()}
    assert shown == {
        "users": "1",
        "assistants": "1",
        "pages, mid-term": "6",
        "pages, short-term": "2",
        "pages accepted": "8",
        "sessions": "2",
        "links": "2",
        "profiles": "1",
        "facts of users": "2",
        "facts of assistants": "1",
        "facts that repeat one": "0",
        "embeddings reused": "11",
        "embeddings made": "0",
        "set aside": "0",
        "store": str(store),
    }
    again = here.json("migrate", legacy, "--store", store)
    assert (again["already_there"], again["pages_accepted"], again["sessions"], again["left_out"]) == (1, 0, 2, [])
    found = here.json("knowledge", "--store", store, "--user", "tom", "--about", "assistant")
    assert "recommended a book" in json.dumps(found)


def test_pages_go_under_the_assistant_that_is_named(here: Here, tmp_path: Path) -> None:
    legacy, store = tom(tmp_path / "legacy"), tmp_path / "store"
    here.json("migrate", legacy, "--store", store, "--assistant", "mia", "--no-wait")
    with open_fake(store, workers=False) as memory:
        assert len(memory.pages("tom", assistant_id="mia")) == 8
        assert memory.pages("tom") == []


def test_the_assistant_that_the_folder_names_is_pointed_to(here: Here, tmp_path: Path) -> None:
    legacy = tom(tmp_path / "legacy")
    assert here("migrate", legacy, "--store", tmp_path / "store", "--dry-run") == ExitCode.OK
    assert "note: pages go under 'default_assistant_profile'; the folder names 'mia' (--assistant)" in here.err
    here.json("migrate", legacy, "--store", tmp_path / "store", "--assistant", "mia", "--dry-run")
    assert "note" not in here.err


def test_a_dry_run_counts_and_changes_nothing(here: Here, tmp_path: Path) -> None:
    legacy, store = tom(tmp_path / "legacy"), tmp_path / "store"
    counted = here.json("migrate", legacy, "--store", store, "--dry-run")
    assert (counted["pages_mid"], counted["pages_accepted"], counted["dry_run"]) == (6, 8, True)
    assert not store.exists()
    here.json("migrate", legacy, "--store", store)
    counted = here.json("migrate", legacy, "--store", store, "--dry-run")
    assert (counted["already_there"], counted["pages_accepted"]) == (1, 0)


def test_what_is_left_out_is_named_and_the_exit_code_says_so(here: Here, tmp_path: Path) -> None:
    legacy, store = tom(tmp_path / "legacy"), tmp_path / "store"
    whole = (legacy / "users/tom/long_term_user.json").read_bytes()
    put(legacy, "users/tom/long_term_user.json", whole[: len(whole) // 2])
    put(legacy, "users/ann/short_term.json", [short_page(1), {"user_input": 7}])
    for options in (["--dry-run"], []):
        assert here("migrate", legacy, "--store", store, "--assistant", "mia", *options) == ExitCode.LEFT_OUT
        assert "left out: users/tom/long_term_user.json: is no JSON" in here.err
        assert "left out: users/ann/short_term.json: [1].user_input must be a string, found a number" in here.err
    with open_fake(store, workers=False) as memory:
        assert [len(memory.pages(user, assistant_id="mia")) for user in ("tom", "ann")] == [8, 1]


@pytest.mark.parametrize(
    "what", ["", "users", "users/tom", "users/tom/mid_term.json", "..", "users/tom/short_term.json"]
)
def test_ingest_names_the_command_for_such_folders(here: Here, tmp_path: Path, what: str) -> None:
    legacy, store = tom(tmp_path / "data" / "legacy"), tmp_path / "store"
    assert here("ingest", legacy / what, "--store", store) == ExitCode.INPUT
    assert f"mos-pipeline migrate {legacy} --store DIR" in here.err
    assert not store.exists()


def test_a_store_is_not_made_within_the_folder_that_is_read(here: Here, tmp_path: Path) -> None:
    legacy = tom(tmp_path / "legacy")
    for store in (legacy / "store", legacy):
        assert here("migrate", legacy, "--store", store) == ExitCode.INPUT
    assert here("migrate", tmp_path / "nowhere", "--store", tmp_path / "store") == ExitCode.INPUT
    assert here("migrate", legacy, "--store", tmp_path / "store", "--assistant", "") == ExitCode.INPUT
    assert sorted(path.name for path in legacy.iterdir()) == ["assistants", "users"]


def test_a_store_that_is_open_elsewhere_is_refused(here: Here, tmp_path: Path) -> None:
    with open_fake(tmp_path / "store", workers=False):
        code = here("migrate", tom(tmp_path / "legacy"), "--store", tmp_path / "store")
    assert code == ExitCode.STORE
    assert "has this store open" in here.err


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_it_is_as_if_run_once(tmp_path: Path) -> None:
    legacy = many(tmp_path / "legacy")
    began = time.monotonic()
    assert run("migrate", legacy, "--store", tmp_path / "whole").returncode == ExitCode.OK
    whole_s = time.monotonic() - began
    expected = told(tmp_path / "whole")
    assert [len(one["sessions"]) for one in expected.values()] == [9, 9, 9]
    for number, share in enumerate((0.35, 0.5, 0.65, 0.8)):
        store = tmp_path / f"killed {number}"
        for _ in range(2):
            process = start("migrate", legacy, "--store", store)
            time.sleep(whole_s * share)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=PATIENCE_S)
        assert run("migrate", legacy, "--store", store).returncode == ExitCode.OK
        assert told(store) == expected


@pytest.mark.slow
def test_killed_between_its_pages_and_their_memory_then_used_by_others(tmp_path: Path) -> None:
    legacy, store = many(tmp_path / "legacy"), tmp_path / "store"
    result_of("migrate", legacy, "--store", tmp_path / "whole")
    slow = {"MOS_PIPELINE_EMBEDDING__BACKEND": "fake", "MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "5000"}
    process = start("migrate", legacy, "--store", store, settings=slow)  # which looks at some vectors first
    try:
        until(lambda: any(path.stat().st_size > 400 for path in store.glob("segments/*")), "pages are written")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    with open_fake(store) as memory:
        memory.wait_idle(PATIENCE_S)
        assert memory.sessions(USERS[0])
        assert "summary of" not in memory.sessions(USERS[0])[0].summary
    assert run("migrate", legacy, "--store", store).returncode == ExitCode.OK
    assert told(store) == told(tmp_path / "whole")


def test_an_interrupted_run_says_that_it_goes_on(tmp_path: Path) -> None:
    legacy, store = many(tmp_path / "legacy"), tmp_path / "store"
    slow = {"MOS_PIPELINE_EMBEDDING__BACKEND": "fake", "MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "5000"}
    process = start("migrate", legacy, "--store", store, settings=slow)
    try:
        until(lambda: any(path.stat().st_size > 400 for path in store.glob("segments/*")), "pages are written")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "run the same command again" in err
    assert run("migrate", legacy, "--store", store).returncode == ExitCode.OK


def test_export_writes_a_private_folder_that_migrates_back(here: Here, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    here.json("migrate", tom(tmp_path / "legacy"), "--store", store, "--assistant", "mia")
    done = here.json("export", out, "--store", store, "--format", "memoryos")
    assert done == {"users": 1, "pages": 8, "sessions": 2, "facts": 3, "left_out": [], "out": str(out)}
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == [
        "assistants/mia/long_term_assistant.json",
        *(f"users/tom/{name}.json" for name in ("long_term_user", "mid_term", "short_term")),
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*")} == {0o600, 0o700}
    assert here("export", out, "--store", store, "--format", "memoryos") == ExitCode.INPUT
    assert "is there already" in here.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["legacy", "out", "store"]
    assert here("export", "-", "--store", store, "--format", "memoryos") == ExitCode.INPUT
    assert here("export", tmp_path / "a", "--store", store, "--assistant", "mia") == ExitCode.INPUT


def test_export_leaves_out_ids_that_can_be_no_folders(here: Here, tmp_path: Path) -> None:
    ids = ["fine", "..", "a/b", "/tmp", "nul\0", "lone \ud800", "x" * 300, "ü" * 120]
    with open_fake(tmp_path / "store") as memory:
        for user in ids:
            memory.add(user, "hello", "hi", assistant_id="mia")
    out = tmp_path / "out"
    assert here("export", out, "--store", tmp_path / "store", "--format", "memoryos") == ExitCode.LEFT_OUT
    assert LegacyFolder(out).users == ["a/b", "fine", "ü" * 120]
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in (out / "users/a", out / "users/a/b"))
    assert here.err.count("left out: user") == 5


def test_export_asks_which_assistant_where_there_are_several(here: Here, tmp_path: Path) -> None:
    with open_fake(tmp_path / "store") as memory:
        for assistant in ("mia", "max"):
            memory.add("tom", f"hello {assistant}", "hi", assistant_id=assistant)
    arguments = ("--store", tmp_path / "store", "--format", "memoryos")
    assert here("export", tmp_path / "out", *arguments) == ExitCode.INPUT
    assert "'max', 'mia'" in here.err
    assert here("export", tmp_path / "out", *arguments, "--assistant", "max") == ExitCode.OK
    (page,) = json.loads((tmp_path / "out/users/tom/short_term.json").read_text())
    assert page["user_input"] == "hello max"
    assert here("export", tmp_path / "other", *arguments, "--assistant", "moe") == ExitCode.INPUT
    assert here("export", tmp_path / "other", *arguments, "--user", "nobody") == ExitCode.INPUT
    assert "there are no pages to export" in here.err
    assert not (tmp_path / "other").exists()


def test_export_beside_an_owner_has_the_vectors_too(here: Here, tmp_path: Path) -> None:
    store = tmp_path / "store"
    here.json("migrate", tom(tmp_path / "legacy"), "--store", store, "--assistant", "mia")
    here.json("export", tmp_path / "alone", "--store", store, "--format", "memoryos")
    with open_fake(store):
        here.json("export", tmp_path / "beside", "--store", store, "--format", "memoryos")
    for path in (tmp_path / "alone").rglob("*.json"):
        beside = tmp_path / "beside" / path.relative_to(tmp_path / "alone")
        pages = [json.loads(one.read_text()) for one in (path, beside)]
        for one in pages:
            for found in one.get("sessions", {}).values() if isinstance(one, dict) else ():
                found["R_recency"] = found["H_segment"] = 0  # of the clock
        assert pages[0] == pages[1]
