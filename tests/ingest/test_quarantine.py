from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli.left_out import refused
from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest.quarantine import Quarantine
from tests.ingest.common import errors, items, page, records, said, written

BAD = ['{"user_id": "u"', page(1, user_input=3), b'{"user_id": "\xff"}']


def wrong(path: Path, **reading: Any) -> list[RecordError]:
    return [item for item in items(path, **reading) if isinstance(item, RecordError)]


def lines(*bad: Any) -> bytes:
    encoded = (
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in bad
    )
    return b"".join(line + b"\n" for line in encoded)


def put(path: Path, *found: RecordError) -> list[dict[str, Any]]:
    with Quarantine(path) as quarantine:
        for error in found:
            quarantine.put(error)
        assert quarantine.count == len(found)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_kept_with_its_place_and_reason_once(tmp_path: Path) -> None:
    source, path = written(tmp_path, lines(page(), *BAD)), tmp_path / "left"
    found = wrong(source)
    entries = put(path, *found, *found)
    assert [(entry["source"], entry["line"], entry["place"], entry["format"]) for entry in entries] == [
        (str(source), number, f"line {number}", "jsonl") for number in (2, 3, 4)
    ]
    assert entries[1]["reason"] == "user_input must be a string, found a number"
    assert [entry["raw"].encode("utf-8", "surrogateescape") for entry in entries] == lines(*BAD).splitlines()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert put(path, *found) == entries  # as of a run that was interrupted, and met them again


def test_it_reads_as_what_is_still_wrong_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "left"
    entries = put(path, *wrong(written(tmp_path, lines(*BAD))))
    told = errors(path)
    assert [error.partition(":")[0] for error in told] == ["line 1, raw", "line 2, raw", "line 3, raw"]
    again = wrong(path)
    assert [error.format for error in again] == ["jsonl"] * 3
    assert [error.raw for error in again] == lines(*BAD).splitlines()
    entries[0]["raw"] += ', "user_input": "a", "agent_response": "b"}'
    entries[1]["raw"] = json.loads(entries[1]["raw"]) | {"user_input": "3"}  # as an object
    entries[2]["raw"] = json.dumps(page(2, user_input="half \ud800"), ensure_ascii=False)
    assert said(records(written(tmp_path, entries))) == [("a", "b"), ("3", "answer 1"), ("half \ud800", "answer 2")]


def test_conversations_are_kept_whole(tmp_path: Path) -> None:
    talk = {"uuid": "a", "chat_messages": [{"sender": "human", "text": "x"}, {"sender": "nobody", "text": "y"}]}
    (entry,) = put(tmp_path / "left", *wrong(written(tmp_path, json.dumps([talk]))))
    assert (entry["place"], entry["line"], entry["format"]) == ("conversation 0, message 1", None, "claude")
    entry["raw"] = entry["raw"].replace("nobody", "assistant")
    assert said(records(written(tmp_path, [entry]))) == [("x", "y")]


@pytest.mark.parametrize("array", [False, True])
def test_pages_that_are_alike_are_kept_each(tmp_path: Path, array: bool) -> None:
    """A store refuses pages one by one, also of one conversation."""
    talk = {"messages": [{"role": "user", "content": "again"}] * 2}
    found = records(written(tmp_path, json.dumps([talk]) if array else [talk]))
    entries = put(tmp_path / "left", *(refused(record, InputError("too large")) for record in found))
    where = "conversation 0" if array else "line 1"
    assert [entry["place"] for entry in entries] == [f"{where}, page 0", f"{where}, page 1"]
    assert said(records(tmp_path / "left")) == [("again", "")] * 2


def test_what_is_too_long_or_too_deep_is_told_without_its_text(tmp_path: Path) -> None:
    path = written(tmp_path, lines(page(), page(user_input="x" * 9000), page(1)))
    found = items(path, max_page_bytes=1024)
    assert said([item for item in found if not isinstance(item, RecordError)]) == said(records(path))[::2]
    (entry,) = put(tmp_path / "left", *wrong(path, max_page_bytes=1024))
    assert (entry["line"], entry["raw"]) == (2, None)
    assert "too long; mend it in its source" in errors(tmp_path / "left")[0]


def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path: Path) -> None:
    path, found = tmp_path / "left", wrong(written(tmp_path, lines(*BAD)))
    entries = put(path, *found)
    path.write_bytes(path.read_bytes()[:-20])
    assert put(path, *found) == entries


def test_a_mended_line_without_an_end_is_kept(tmp_path: Path) -> None:
    path, found = tmp_path / "left", wrong(written(tmp_path, lines(*BAD)))
    entries = put(path, *found[:2])
    mended = entries[1] | {"raw": page(7)}
    path.write_text("\n".join(map(json.dumps, [entries[0], mended])))
    assert put(path, found[2])[:2] == [entries[0], mended]


@pytest.mark.parametrize("content", ["hello\n", "{}\n", "[1]\n", "hello", "{}", "a\n{", '{"reason": "\nhello'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError, match="holds something else; name another file"):
        Quarantine(path)
    assert path.read_text() == content


def test_where_nothing_can_be_written_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be written"):
        put(tmp_path / "gone" / "left", *wrong(written(tmp_path, lines(*BAD))))


def test_a_format_that_is_none_is_told(tmp_path: Path) -> None:
    entry = {"reason": "", "source": "", "raw": "{}", "format": "csv"}
    assert "format must be one of jsonl" in errors(written(tmp_path, [entry]))[0]
