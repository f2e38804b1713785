"""The commands that look at a store: query, stats, verify."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mos_pipeline.cli.exits import ExitCode
from tests.cli.common import Here, Record, result_of, run, write
from tests.support import open_fake


def test_query_finds_the_page(sample_store: Path, sample: list[Record]) -> None:
    found = result_of(
        "query", "number7 please", "--store", sample_store, "--user", "user 1", "--assistant", "helper", "-k", 3
    )
    assert not found["degraded"]
    assert [hit["rank"] for hit in found["pages"]] == [1, 2, 3]
    best = found["pages"][0]
    assert {name: best["page"][name] for name in sample[7]} == sample[7]
    assert best["score"] > found["pages"][1]["score"]
    assert -1 <= best["dense"] <= 1
    assert [page["metadata"]["number"] for page in found["short_term"]] == list(range(60))[1::3][-9:]


def test_query_for_people(here: Here, sample_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    asked = (
        "query",
        "number7",
        "--store",
        sample_store,
        "--user",
        "user 1",
        "--assistant",
        "helper",
        "-k",
        2,
        "--pages-only",
    )
    assert here(*asked) == ExitCode.OK
    lines = here.out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("  1. ")
    assert "  2026-01-01 00:00:07  " in lines[0]
    assert lines[1] == "     user      question 7 about number7"
    assert lines[2] == "     assistant answer 7"
    assert max(map(len, lines[1:3])) <= 40
    assert not here.err


def test_query_says_what_its_answer_lacks(here: Here, sample_store: Path) -> None:
    asked = ("query", "number7", "--store", sample_store, "--user", "user 1")
    assert here.json(*asked)["pages"] == []
    assert "'default_assistant_profile'; this user has pages with another" in here.err
    assert here.json(*asked[:-1], "nobody")["pages"] == []
    assert here.err.splitlines() == [
        "note: there are no pages of user 'nobody' with assistant 'default_assistant_profile'"
    ]


def test_query_without_the_model_in_time_is_degraded(sample_store: Path) -> None:
    asked = ("query", "number7", "--store", sample_store, "--user", "user 1", "--assistant", "helper")
    settings = {"MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "60000", "MOS_PIPELINE_RUNTIME__CLOSE_TIMEOUT_S": "0.5"}
    slow = run(*asked, "--timeout", "3", settings=settings)
    assert slow.returncode == ExitCode.OK
    assert "note: degraded answer, words alone decided: the model gave no vector within 3 s" in slow.stderr
    assert "question 7 about number7" in slow.stdout


def test_query_refuses_another_model(sample_store: Path) -> None:
    done = run(
        "query",
        "q",
        "--store",
        sample_store,
        "--user",
        "u",
        settings={"MOS_PIPELINE_EMBEDDING__BACKEND": "torch"},
    )
    assert done.returncode == ExitCode.STORE
    assert done.stderr.startswith("error: ")


def test_stats(here: Here, sample_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = here.json("stats", "--store", sample_store)
    assert (stats["pages"], stats["users"], stats["backlog_pages"], stats["restored"]) == (60, 3, 0, True)
    assert stats["workers"] == {}
    # No vector is made here, so the configured model is of no matter.
    monkeypatch.delenv("MOS_PIPELINE_EMBEDDING__BACKEND")
    assert here.json("stats", "--store", sample_store)["model"] == stats["model"]
    assert here("stats", "--store", sample_store) == ExitCode.OK
    shown = {line[:9].strip(): line[9:].strip() for line in here.out.splitlines()}
    assert (shown["pages"], shown["users"], shown["model"]) == ("60", "3", "fake, 384 dimensions")


def test_verify_tells_damage(here: Here, sample_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sample_store, tmp_path / "store")
    report = here.json("verify", "--store", store)
    assert (report["ok"], report["pages"], report["problems"]) == (True, 60, [])
    assert here("verify", "--store", store) == ExitCode.OK
    assert "everything is there" in here.out

    segment = next((store / "segments").iterdir())
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    assert here("verify", "--store", store, "--json") == ExitCode.STORE
    assert '"ok": false' in here.out
    assert here("verify", "--store", store) == ExitCode.STORE
    assert re.search(rf"^PROBLEM +{re.escape(str(segment))}, offset \d+: ", here.out, re.MULTILINE)
    assert re.search(r"^verdict +1 problem$", here.out, re.MULTILINE)


def test_verify_works_beside_the_owner(here: Here, tmp_path: Path) -> None:
    import os

    with open_fake(tmp_path / "store", store__lock_timeout_s=0.1) as memory:
        memory.add("tom", "hello", "hi")
        assert here.json("verify", "--store", tmp_path / "store")["owner"] == os.getpid()


def test_texts_can_not_command_the_terminal(tmp_path: Path) -> None:
    nasty = '{"user_id": "u", "user_input": "a\\u001b[2Jb\\u202ec\\nd \\ud800", "agent_response": "%s"}' % ("漢" * 200)
    result_of("ingest", write(tmp_path / "f", [nasty]), "--store", tmp_path / "store")
    done = run("query", "漢", "--store", tmp_path / "store", "--user", "u")
    assert done.returncode == ExitCode.OK, done.stderr
    _, said, answered = done.stdout.splitlines()
    assert said == "     user      a[2Jbc d "
    assert answered.endswith("漢…")
