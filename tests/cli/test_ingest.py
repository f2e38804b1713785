from __future__ import annotations

import json
import os
import pty
import re
from pathlib import Path

import pytest

from mos_pipeline import ingest as readers
from mos_pipeline.cli import ingest
from mos_pipeline.cli.exits import ExitCode
from tests.cli.common import Here, Record, exported, records, result_of, run, start, without_ids, write

GOOD = '{"user_id": "u", "user_input": "hello", "agent_response": "hi"}'
LOCOMO = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bo",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I bought a kayak."},
                {"speaker": "Bo", "dia_id": "D1:2", "text": "What colour?"},
            ],
        },
    }
]


def test_the_formats_are_those_there_are_readers_for() -> None:
    assert readers.FORMATS == ingest.FORMATS


def test_files_become_pages_once_in_order(tmp_path: Path, here: Here) -> None:
    first, second = records(40), records(25, users=2)
    store = tmp_path / "store"
    paths = [write(tmp_path / "a.jsonl", first), write(tmp_path / "b.jsonl", second)]
    first_bytes = paths[0].read_bytes().rindex(b"\n", 0, -1) + 1  # where the last line begins
    assert result_of("ingest", *paths, paths[0], "--store", store) | {"seconds": 0, "pages_per_second": 0} == {
        "store": str(store),
        "read": 65,
        "accepted": 65,
        "already_there": 0,
        "passed_bytes": first_bytes,
        "left_out": 0,
        "quarantine": None,
        "left_on_purpose": {},
        "seconds": 0,
        "pages_per_second": 0,
        "backlog_pages": 0,
        "set_aside": 0,
    }
    assert without_ids(exported(store)) == first + second
    stats = here.json("stats", "--store", store)
    assert (stats["pages"], stats["users"], stats["backlog_pages"]) == (65, 3, 0)


def test_what_was_added_to_a_file_is_all_that_is_taken_when_it_is_read_again(here: Here, tmp_path: Path) -> None:
    path, store = tmp_path / "pages.jsonl", tmp_path / "store"
    for count, fresh in ((10, 10), (10, 0), (17, 7)):
        write(path, records(count))
        result = here.json("ingest", path, "--store", store)
        assert (result["read"], result["accepted"], result["already_there"]) == (fresh, fresh, 0)
    assert without_ids(exported(store)) == records(17)


def test_of_a_document_that_is_read_again_the_summary_tells_what_was_there(here: Here, tmp_path: Path) -> None:
    path, store = tmp_path / "talks.json", tmp_path / "store"
    turns = [{"role": role, "content": "Hello"} for role in ("user", "assistant") * 2]
    for talks, new in ((3, 6), (3, 0), (5, 4)):
        path.write_text(json.dumps([{"user_id": "ann", "id": f"{talk}", "messages": turns} for talk in range(talks)]))
        would = here.json("ingest", path, "--store", store, "--dry-run")
        result = here.json("ingest", path, "--store", store)
        assert (result["read"], result["accepted"], result["already_there"]) == (2 * talks, new, 2 * talks - new)
        assert (would["accepted"], would["already_there"]) == (new, 2 * talks - new)


def test_equal_lines_are_pages_of_their_own_and_equal_ids_are_one(tmp_path: Path) -> None:
    named = json.dumps(json.loads(GOOD) | {"page_id": "p1"})
    result = result_of("ingest", write(tmp_path / "f", [GOOD, GOOD, named, named]), "--store", tmp_path / "store")
    assert (result["read"], result["accepted"], result["already_there"]) == (4, 3, 1)


def test_options_stand_in_for_what_records_leave_out(tmp_path: Path) -> None:
    bare = '{"user_input": "hello", "agent_response": "hi"}'
    whole = '{"user_id": "u", "assistant_id": "a", "user_input": "hello", "agent_response": "hi"}'
    path, store = write(tmp_path / "f", [bare, whole]), tmp_path / "store"
    result_of("ingest", path, "--store", store, "--user", "tom", "--assistant", "rex")
    assert [(page["user_id"], page["assistant_id"]) for page in exported(store)] == [("tom", "rex"), ("u", "a")]


def test_locomo_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(LOCOMO))
    result_of("ingest", path, "--store", tmp_path / "store")
    (page,) = exported(tmp_path / "store")
    assert (page["user_id"], page["user_input"], page["agent_response"]) == (
        "conv-1",
        "I bought a kayak.",
        "What colour?",
    )


def test_without_waiting_the_backlog_is_left_for_another_time(tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(50)), tmp_path / "store"
    slow = {"MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "100"}
    result = result_of("ingest", path, "--store", store, "--no-wait", settings=slow)
    assert (result["accepted"], result["backlog_pages"] > 0) == (50, True)
    result = result_of("ingest", path, "--store", store)
    assert (result["read"], result["backlog_pages"]) == (0, 0)


def test_people_get_a_table(tmp_path: Path, sample: list[Record]) -> None:
    done = run("ingest", write(tmp_path / "f", sample), "--store", tmp_path / "store")
    assert done.returncode == ExitCode.OK
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.splitlines())
    assert shown.keys() == {"pages read", "accepted", "already there", "seconds", "pages/s", "store"}
    assert (shown["pages read"], shown["store"]) == ("60", str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("lines", "options", "told"),
    [
        ([GOOD, GOOD, '{"user_id": "u", "user_input": 3, "agent_response": "x"}'], (), ("line 3", "user_input")),
        ([GOOD, GOOD, "{"], (), ("line 3", "JSON")),
        ([GOOD, GOOD, GOOD.replace('"u"', '"u", "assistant_id": ""')], (), ("line 3", "assistant_id")),
    ],
)
def test_a_wrong_record_is_named_and_those_before_it_stay(
    tmp_path: Path, lines: list[str], options: tuple[str, ...], told: tuple[str, ...]
) -> None:
    path, store = write(tmp_path / "pages.jsonl", lines), tmp_path / "store"
    done = run("ingest", path, "--store", store, *options)
    assert done.returncode == ExitCode.INPUT
    note, error = done.stderr.splitlines()
    assert note.startswith(
        "note: 2 pages were accepted and are kept; mend what is wrong and run the same command again"
    )
    assert error.startswith(f"error: {path}, ")
    assert all(part in error for part in told)
    assert len(exported(store)) == 2


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (None, (), "can't be read"),
        ("hello", (), "format"),
        (GOOD, ("--user", ""), "user is empty"),
        (GOOD, ("--assistant", ""), "--assistant is empty"),
    ],
)
def test_what_is_wrong_at_first_sight_is_told_before_a_store_is_made(
    here: Here, tmp_path: Path, content: str | None, options: tuple[str, ...], told: str
) -> None:
    good, path = write(tmp_path / "good.jsonl", [GOOD]), tmp_path / "pages.jsonl"
    if content is not None:
        path.write_text(content)
    assert here("ingest", good, path, "--store", tmp_path / "store", *options) == ExitCode.INPUT
    assert told in here.err
    assert len(here.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_a_missing_model_is_told_and_the_pages_are_kept(tmp_path: Path) -> None:
    path, store = write(tmp_path / "pages.jsonl", records(12)), tmp_path / "store"
    no_model = {
        "MOS_PIPELINE_EMBEDDING__BACKEND": "torch",
        "MOS_PIPELINE_EMBEDDING__MODEL": str(tmp_path / "no-model"),
    }
    done = run("ingest", path, "--store", store, settings=no_model)
    assert done.returncode == ExitCode.WORKER, done.stderr
    assert "note: 12 pages were accepted and are kept" in done.stderr
    assert "no-model" in done.stderr.splitlines()[-1]
    assert without_ids(exported(store)) == records(12)


def test_on_a_terminal_a_bar_is_redrawn_in_place_and_taken_away(tmp_path: Path) -> None:
    path = write(tmp_path / "pages.jsonl", records(300))
    controller, terminal = pty.openpty()
    slow = {"MOS_PIPELINE_EMBEDDING__FAKE_MS_PER_TEXT": "2"}
    process = start("ingest", path, "--store", tmp_path / "store", stderr=terminal, settings=slow)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
    except OSError:  # how the end of a terminal reads on Linux
        pass
    os.close(controller)
    assert process.communicate()[0]
    assert process.returncode == ExitCode.OK
    frames = shown.decode().split("\r\x1b[K")
    assert "\n" not in shown.decode()
    assert frames[-1] == ""
    assert any(re.match(r"processing +\[#*-*\] 300 pages, .*backlog \d+", frame) for frame in frames), frames


def chatgpt(*lengths: int) -> str:
    """ChatGPT's export of conversations of so many messages each, the latest first, with a message of a tool each."""
    talks = []
    for number, length in enumerate(lengths):
        roles = ["tool", *(("user", "assistant")[at % 2] for at in range(length))]
        mapping = {
            str(at): {
                "parent": str(at - 1) if at else None,
                "message": {"author": {"role": role}, "content": {"content_type": "text", "parts": [f"{number} {at}"]}},
            }
            for at, role in enumerate(roles)
        }
        talks.append({"id": f"c{number}", "title": "T", "mapping": mapping, "current_node": str(length)})
    return json.dumps(talks[::-1])


def test_of_a_later_export_only_what_is_new_is_taken(here: Here, tmp_path: Path) -> None:
    path, store = tmp_path / "conversations.json", tmp_path / "store"
    path.write_text(chatgpt(4, 2))
    assert here("ingest", path, "--store", store) == ExitCode.INPUT
    assert "conversation 0: user is missing; put it into the record, or name a user" in here.err
    result = here.json("ingest", path, "--store", store, "--user", "ann")
    assert (result["accepted"], result["left_on_purpose"]) == (3, {"messages of tools": 2})
    path.write_text(chatgpt(6, 2, 2))
    assert here("ingest", path, "--store", store, "--user", "ann") == ExitCode.OK
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in here.out.splitlines())
    assert (shown["accepted"], shown["already there"], shown["not taken"]) == ("2", "3", "3 messages of tools")
    said = [(page["metadata"]["session"], page["user_input"]) for page in exported(store)]
    assert said == [("c1", "1 1"), ("c0", "0 1"), ("c0", "0 3"), ("c2", "2 1"), ("c0", "0 5")]


def test_a_field_names_the_user(here: Here, tmp_path: Path) -> None:
    pages = [json.loads(GOOD) | {"account": {"id": 7}}, json.loads(GOOD)]
    here.json("ingest", write(tmp_path / "f", pages), "--store", tmp_path / "store", "--user-field", "account.id")
    assert [page["user_id"] for page in exported(tmp_path / "store")] == ["7", "u"]
