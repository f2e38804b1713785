from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline.cli import scope
from mos_pipeline.cli.exits import ExitCode
from tests.cli.common import Here, Record, exported, result_of, without_ids
from tests.support import open_fake

ODD: list[dict[str, Any]] = [
    {"user_input": "", "agent_response": "only the assistant", "timestamp": "not a date"},
    {"user_input": "lone \ud800 surrogate", "agent_response": "line\nbreak \u2028 and ☕"},
    {"user_input": "x", "agent_response": "y", "page_id": "my own id", "assistant_id": "rex"},
    {"user_input": "x", "agent_response": "y", "metadata": {"a": [1, -2.5, None, {"deep": True}], "ü": 2**63}},
    {"user_input": "x", "agent_response": "y", "metadata": {"empty": {}}},
]


def test_export_and_ingest_give_the_same_store_back(tmp_path: Path, here: Here) -> None:
    with open_fake(tmp_path / "first", store__lock_timeout_s=1.0) as memory:
        for number, page in enumerate(ODD * 2):
            memory.add(
                f"user {number % 2}", **({"timestamp": "2026-01-01"} | page | ({"page_id": None} if number > 4 else {}))
            )
        pages = memory.pages()
    assert here("export", tmp_path / "out.jsonl", "--store", tmp_path / "first") == ExitCode.OK
    result_of("ingest", tmp_path / "out.jsonl", "--store", tmp_path / "second")
    with open_fake(tmp_path / "second", workers=False) as memory:
        assert memory.pages() == pages
    assert here("export", tmp_path / "again.jsonl", "--store", tmp_path / "second") == ExitCode.OK
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_more_pages_than_are_read_at_once(
    here: Here, sample_store: Path, sample: list[Record], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for size in (7, 60, 1000):
        monkeypatch.setattr(scope, "PAGES_AT_ONCE", size)
        assert here.json("export", tmp_path / "out", "--store", sample_store) == {
            "pages": 60,
            "out": str(tmp_path / "out"),
        }
        assert without_ids(map(json.loads, (tmp_path / "out").read_text().splitlines())) == sample


def test_one_users_pages(here: Here, sample_store: Path, sample: list[Record], tmp_path: Path) -> None:
    assert here("export", tmp_path / "out", "--store", sample_store, "--user", "user 2") == ExitCode.OK
    assert without_ids(map(json.loads, (tmp_path / "out").read_text().splitlines())) == sample[2::3]


def test_stdout_holds_nothing_but_the_pages(sample_store: Path, sample: list[Record]) -> None:
    assert without_ids(exported(sample_store)) == sample


def test_the_file_is_private_and_replaces_what_a_link_points_to(here: Here, sample_store: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    assert here("export", link, "--store", sample_store) == ExitCode.OK
    assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 60
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_what_is_no_regular_file_is_not_replaced(here: Here, sample_store: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path, tmp_path / "pipe", tmp_path / "missing" / "out"):
        assert here("export", out, "--store", sample_store) == ExitCode.INPUT
        assert here.err.startswith(f"error: {out}: ")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [({"a": {"b": [b"bytes"]}}, "metadata.a.b[0] is of type bytes"), ({"a": {1: "x"}}, "metadata.a has the key 1")],
)
def test_metadata_that_json_can_not_hold_is_an_error_that_names_the_page(
    here: Here, tmp_path: Path, metadata: dict[str, Any], told: str
) -> None:
    with open_fake(tmp_path / "store") as memory:
        memory.add("tom", "hello", "hi")
        page_id = memory.add("tom", "hello", "hi", metadata=metadata)
    (tmp_path / "out").write_text("kept")
    assert here("export", tmp_path / "out", "--store", tmp_path / "store") == ExitCode.INPUT
    assert here.err.startswith(f"error: page {page_id}: {told}")
    assert (tmp_path / "out").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "store"}


def test_numbers_that_are_none_come_back(tmp_path: Path, here: Here) -> None:
    with open_fake(tmp_path / "store") as memory:
        memory.add("tom", "hello", "hi", metadata={"score": float("inf")})
    assert here("export", tmp_path / "out", "--store", tmp_path / "store") == ExitCode.OK
    assert json.loads((tmp_path / "out").read_text())["metadata"] == {"score": float("inf")}
