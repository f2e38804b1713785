"""Records that can't be taken: told, counted, kept aside; and what a dry run tells of them."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli.exits import ExitCode
from tests.cli.common import Here, exported, records, run, start, until, without_ids, write
from tests.cli.test_resume import SLOW, stored

BAD = ['{"user_id": "u", "user_input": 3, "agent_response": "x"}', "{", '{"user_id": ""}']


def mixed(count: int, every: int = 5) -> list[Any]:
    """Return records with a bad line after each fifth one."""
    lines: list[Any] = []
    for number, record in enumerate(records(count)):
        lines += [record, BAD[number % 3]] if number % every == every - 1 else [record]
    return lines


def ingest(here: Here, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = here("ingest", *arguments, "--json")
    return code, json.loads(here.out) if here.out else {}


@pytest.mark.parametrize("on_error", ["skip", "quarantine"])
def test_all_others_are_taken_and_the_end_tells(here: Here, tmp_path: Path, on_error: str) -> None:
    path, store = write(tmp_path / "pages.jsonl", mixed(60)), tmp_path / "store"
    code, result = ingest(here, path, "--store", store, "--on-error", on_error)
    assert code == ExitCode.LEFT_OUT
    assert (result["read"], result["accepted"], result["left_out"]) == (60, 60, 12)
    said = here.err.splitlines()
    assert f"left out: {path}, line 12: user_input must be a string" in said[1]
    assert len([line for line in said if line.startswith("left out: ")]) == 10
    assert said[-1].startswith("more is left out")
    assert without_ids(exported(store)) == records(60)
    kept = tmp_path / "store.quarantine.jsonl"
    assert result["quarantine"] == (str(kept) if on_error == "quarantine" else None)
    assert kept.exists() == (on_error == "quarantine")


def test_a_quarantine_is_mended_and_ingested(here: Here, tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", mixed(20)), tmp_path / "store"
    kept = tmp_path / "left out.jsonl"
    ingest(here, path, "--store", store, "--on-error", "quarantine", "--quarantine", kept)
    entries = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(entry["source"], entry["line"], entry["raw"]) for entry in entries] == [
        (str(path), line, raw) for line, raw in zip((6, 12, 18, 24), (BAD[1], BAD[0], BAD[2], BAD[1]), strict=True)
    ]
    code, _ = ingest(here, kept, "--store", store)  # nothing is mended yet
    assert code == ExitCode.INPUT
    assert "line 1, raw: not valid JSON" in here.err
    for number, entry in enumerate(entries[:3]):
        entry["raw"] = json.dumps(records(30)[20 + number])
    write(kept, entries)
    code, result = ingest(here, kept, "--store", store)  # the last is still wrong
    assert code == ExitCode.INPUT
    assert without_ids(exported(store)) == records(23)
    entries[3]["raw"] = records(30)[23]
    write(kept, entries)
    code, result = ingest(here, kept, "--store", store)
    assert (code, result["accepted"]) == (ExitCode.OK, 1)
    assert without_ids(exported(store)) == records(24)


def test_what_was_left_out_is_not_taken_again_and_stops_nothing(here: Here, tmp_path: Path) -> None:
    lines, store = mixed(20), tmp_path / "store"
    path, kept = write(tmp_path / "pages.jsonl", lines[:15]), tmp_path / "store.quarantine.jsonl"
    for count, fresh in ((15, 13), (15, 0), (24, 7)):
        write(path, lines[:count])
        _, result = ingest(here, path, "--store", store, "--on-error", "quarantine")
        assert result["accepted"] == fresh
    assert without_ids(exported(store)) == records(20)
    assert len(kept.read_text().splitlines()) == 4
    assert ingest(here, path, "--store", store) == (ExitCode.INPUT, {})  # the last line is wrong, still
    assert f"{path}, line 24: not valid JSON" in here.err


def test_after_a_stop_a_mended_file_goes_on_where_it_was(here: Here, tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", [*records(7), "{", *records(10)[8:]]), tmp_path / "store"
    assert here("ingest", path, "--store", store) == ExitCode.INPUT
    assert "note: 7 pages were accepted and are kept; mend what is wrong" in here.err
    write(path, records(10))
    code, result = ingest(here, path, "--store", store)
    assert (code, result["accepted"]) == (ExitCode.OK, 3)
    assert without_ids(exported(store)) == records(10)


def test_a_changed_file_is_told(here: Here, tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(9)), tmp_path / "store"
    ingest(here, path, "--store", store)
    write(path, [*records(3), *records(12)[4:]])
    code, result = ingest(here, path, "--store", store)
    assert (code, result["accepted"]) == (ExitCode.OK, 11)
    assert f"note: {path} begins like a file that was read before, but differs" in here.err


def test_what_the_store_refuses_is_left_out_too(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOS_PIPELINE_STORE__MAX_PAGE_BYTES", "2000")
    turns = [("user", "a"), ("assistant", "x" * 3000), ("user", "b")]
    talk = {"user_id": "u", "messages": [{"role": role, "content": text} for role, text in turns]}
    named = [records(1)[0] | {"page_id": "p"}, records(2)[1] | {"page_id": "p"}]
    paths = [write(tmp_path / "talks.jsonl", [talk]), write(tmp_path / "pages.jsonl", named)]
    store = tmp_path / "store"
    code, result = ingest(here, *paths, "--store", store, "--on-error", "quarantine")
    assert (code, result["accepted"], result["left_out"]) == (ExitCode.LEFT_OUT, 2, 2)
    assert "store.max_page_bytes is 2,000" in here.err
    assert "is that of a page of another user" in here.err
    large, other = [json.loads(line) for line in Path(result["quarantine"]).read_text().splitlines()]
    assert (large["format"], other["format"], other["line"]) == ("jsonl", "jsonl", 2)
    monkeypatch.setenv("MOS_PIPELINE_STORE__MAX_PAGE_BYTES", "5000")
    other["raw"] = json.loads(other["raw"]) | {"page_id": "q"}
    code, result = ingest(here, write(tmp_path / "mended", [large, other]), "--store", store)
    assert (code, result["accepted"]) == (ExitCode.OK, 2)


def test_a_file_that_breaks_off_costs_its_rest_alone(here: Here, tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", records(3))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(write(tmp_path / "whole", records(50)[3:]).read_bytes())[:-12])
    code, result = ingest(here, cut, good, "--store", tmp_path / "store", "--on-error", "skip")
    assert (code, result["left_out"]) == (ExitCode.LEFT_OUT, 1)
    assert result["accepted"] > 3
    assert f"{cut}: the compressed data ends too early" in here.err
    assert here("ingest", cut, "--store", tmp_path / "other") == ExitCode.INPUT
    assert f"note: {result['accepted'] - 3} pages were accepted and are kept" in here.err
    assert len(exported(tmp_path / "other")) == result["accepted"] - 3


def test_a_quarantine_that_is_read_is_not_written_to(here: Here, tmp_path: Path) -> None:
    kept = write(tmp_path / "store.quarantine.jsonl", [{"reason": "", "source": "", "raw": "{", "format": "jsonl"}])
    code, _ = ingest(here, kept, "--store", tmp_path / "store", "--on-error", "quarantine")
    assert code == ExitCode.INPUT
    assert "name another file with --quarantine" in here.err
    assert not (tmp_path / "store").exists()


def test_a_quarantine_that_cannot_be_written_is_the_end(here: Here, tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", mixed(20)), tmp_path / "store"
    code, _ = ingest(
        here, path, "--store", store, "--on-error", "quarantine", "--quarantine", tmp_path / "gone" / "file"
    )
    assert code == ExitCode.INPUT
    assert "can't be written" in here.err
    assert without_ids(exported(store)) == records(5)


def test_a_dry_run_counts_and_makes_nothing(here: Here, tmp_path: Path) -> None:
    path, store = (
        write(tmp_path / "pages.jsonl", [*mixed(20), records(1)[0] | {"page_id": "p"}] * 2),
        tmp_path / "store",
    )
    code, result = ingest(here, path, "--store", store, "--dry-run", "--on-error", "quarantine")
    assert code == ExitCode.LEFT_OUT
    assert result == {
        "accepted": 41,
        "already_there": 1,
        "left_out": 8,
        "left_on_purpose": {},
        "users": {"user 0": 15, "user 1": 14, "user 2": 12},
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["pages.jsonl"]
    assert here("ingest", path, "--store", store, "--dry-run") == ExitCode.INPUT
    assert here("ingest", write(path, records(6)), "--store", store, "--dry-run") == ExitCode.OK
    assert here.out.splitlines()[0] == "would be accepted  6 pages of 3 users"


def test_stdin_is_read_and_gone_on_with(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, content = tmp_path / "store", write(tmp_path / "pages.jsonl", records(12)).read_bytes()
    for data, fresh in ((content[: len(content) // 2], 6), (content, 6), (gzip.compress(content), 0)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        _, result = ingest(here, "-", "--store", store, "--on-error", "skip")
        assert result["accepted"] == fresh
    assert without_ids(exported(store)) == records(12)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["pages.jsonl", "store"]


def test_a_folder_is_read_without_what_is_no_conversation(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    write(folder / "b.jsonl", records(8)[4:])
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(write(tmp_path / "f", records(4)).read_bytes()))
    write(folder / "deep" / "talk.json", [{"user_id": "u", "messages": [{"role": "user", "content": "hello"}]}])
    write(folder / "left.jsonl", [{"reason": "", "source": "", "raw": "{", "format": "jsonl"}])
    (folder / "README.md").write_text("# notes")
    (folder / ".hidden").write_text("{}")
    code, result = ingest(here, folder, "--store", folder / "store")
    assert (code, result["accepted"]) == (ExitCode.OK, 9)
    assert f"note: 1 file of no known format left out: {folder / 'README.md'}" in here.err
    code, result = ingest(here, folder, "--store", folder / "store")
    assert (code, result["accepted"]) == (ExitCode.OK, 0)  # and nothing of the store itself is read
    assert without_ids(exported(folder / "store"))[:8] == records(8)


@pytest.mark.slow
def test_sigkill_while_bad_records_are_left_out(tmp_path: Path) -> None:
    count = 1500
    path, store = write(tmp_path / "pages.jsonl", mixed(count)), tmp_path / "store"
    arguments = ("ingest", path, "--store", store, "--on-error", "quarantine")
    for share in (10, 3):
        process = start(*arguments, settings=SLOW)
        until(lambda share=share: stored(store) > count // share, "a part is stored")  # type: ignore[misc]
        process.kill()
        process.communicate(timeout=90)
    assert run(*arguments).returncode == ExitCode.LEFT_OUT
    assert without_ids(exported(store)) == records(count)
    entries = [json.loads(line) for line in (tmp_path / "store.quarantine.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [6 * number + 6 for number in range(count // 5)]


def test_what_is_told_of_a_file_can_not_command_the_terminal(here: Here, tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([{"id": "c", "mapping": {}, "current_node": "a\x1b[2J\u202e\ud800\nb"}]))
    code, _ = ingest(here, path, "--store", tmp_path / "store", "--user", "u", "--on-error", "skip", "--dry-run")
    assert code == ExitCode.LEFT_OUT
    assert here.err == f"left out: {path}, conversation 0, node a[2J b: is missing in the mapping\n"
