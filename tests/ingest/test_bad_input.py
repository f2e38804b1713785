"""Whatever a file holds is a page as it was, or an error that names it; into a store and out of it again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import InputError, MemoryPipeline
from mos_pipeline.ingest import read_source
from tests.ingest.common import errors, items, page, records, written
from tests.support import all_pages, open_fake

TEXTS = {
    "NUL": "a\x00b",
    "controls": "\x01\x1b[31m\x7f\x85",
    "emoji": "👩‍👩‍👧‍👦 and 🇦🇶",
    "half a surrogate pair": "cut \ud83d off \udc00",
    "right to left": "שלום \u202eabc\u202c مرحبا",
    "combining": "e\u0301 \u00e9 Z" + "\u0300" * 50,
    "line ends": "a\nb\r\nc\u2028d\u0085e",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "nothing": "",
    "blanks": " \t ",
}
IDS = ["a/b", "../../etc/passwd", ".", "..", "line\nbreak", "x" * 10_000, "\x00", "\ud800", "שלום", " ", "con"]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryPipeline]:
    with open_fake(tmp_path / "store", workers=False) as pipeline:
        yield pipeline


def through_store(memory: MemoryPipeline, path: Path) -> list[dict[str, Any]]:
    """Read a file into the store; return its pages as the store has them."""
    before = len(all_pages(memory))
    for record in read_source(path):
        memory.add(
            record.user_id,
            record.user_input,
            record.agent_response,
            timestamp=record.timestamp,
            metadata=record.metadata,
            page_id=record.page_id,
        )
    names = ("page_id", "user_id", "user_input", "agent_response", "timestamp", "metadata")
    return [{name: getattr(one, name) for name in names} for one in all_pages(memory)[before:]]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_texts_come_back_as_they_were(memory: MemoryPipeline, tmp_path: Path, name: str, ascii_only: bool) -> None:
    text = TEXTS[name]
    line = json.dumps(page(user_input=text, agent_response=text, metadata={text: [text]}), ensure_ascii=ascii_only)
    if name == "half a surrogate pair" and not ascii_only:
        return  # UTF-8 has no bytes for it
    path = written(tmp_path, line.encode("utf-8"))
    (found,) = through_store(memory, path)
    assert (found["user_input"], found["agent_response"], found["metadata"]) == (text, text, {text: [text]})


@pytest.mark.parametrize("name", IDS, ids=range(len(IDS)))
def test_any_id_is_an_id_and_none_a_path(memory: MemoryPipeline, tmp_path: Path, name: str) -> None:
    (found,) = through_store(memory, written(tmp_path, [page(user_id=name, page_id=f"page {name}")]))
    assert (found["user_id"], found["page_id"]) == (name, f"page {name}")
    assert len(memory.pages(name)) == 1
    assert memory.get(f"page {name}") is not None


TIMES: list[tuple[Any, str | None]] = [
    ("2026-03-01T10:00:00Z", "2026-03-01 10:00:00"),
    ("2026-03-01 12:00:00.5+02:00", "2026-03-01 10:00:00.500000"),
    (1772359200, "2026-03-01 10:00:00"),
    (1772359200.25, "2026-03-01 10:00:00.250000"),
    (1772359200123, "2026-03-01 10:00:00.123000"),
    ("1772359200", "2026-03-01 10:00:00"),
    ("Sun, 01 Mar 2026 11:00:00 +0100", "2026-03-01 10:00:00"),
    ("2026-03-01", "2026-03-01 00:00:00"),
    ("9999-12-31T23:59:59Z", "9999-12-31 23:59:59"),  # the future
    ("0001-01-01", "0001-01-01 00:00:00"),
    (-86400, "1969-12-31 00:00:00"),
    (0, "1970-01-01 00:00:00"),
    (1e300, None),
    (10**40, None),
    ("", None),
    ("the day after tomorrow", None),
    ("2026-02-30", None),
]


@pytest.mark.parametrize(("given", "meant"), TIMES, ids=[str(given)[:40] for given, _ in TIMES])
def test_times_in_any_form_are_kept_and_where_readable_meant(
    memory: MemoryPipeline, tmp_path: Path, given: Any, meant: str | None
) -> None:
    user = f"time {given}"[:99]
    (found,) = through_store(memory, written(tmp_path, [page(user_id=user, timestamp=given, user_input="tea")]))
    assert found["timestamp"] == given or not isinstance(given, str)
    when = datetime.fromisoformat(meant).replace(tzinfo=UTC) if meant else None
    if when is not None:
        assert len(memory.retrieve(user, "tea", since=when, until=when).pages) == 1
    assert len(memory.retrieve(user, "tea", since="0001-01-01").pages) == (when is not None)
    assert len(memory.retrieve(user, "tea").pages) == 1


def test_times_out_of_order_leave_the_order_of_the_file(memory: MemoryPipeline, tmp_path: Path) -> None:
    times = ["2026-03-01", "1999-01-01", "2050-01-01", "soon", "2026-02-01"]
    pages = [page(number, user_id="unordered", timestamp=time) for number, time in enumerate(times)]
    assert [found["timestamp"] for found in through_store(memory, written(tmp_path, pages))] == times


def deep(levels: int) -> str:
    return '{"user_id": "u", "user_input": "", "agent_response": "", "metadata": {"a": %s}}' % (
        "[" * levels + "]" * levels
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (deep(10_000), "nested too deeply"),
        (deep(900), "metadata can't be stored"),
        (json.dumps(page())[:-9], "not valid JSON at column"),
        (json.dumps(page()) + "]", "not valid JSON at column"),
        ("nul", "not valid JSON"),
        (json.dumps(page(metadata={"n": -(2**64)})), "metadata can't be stored"),
        (json.dumps(page(user_id=None)), "user_id is missing"),
        (json.dumps(page(user_id="")), "user_id is empty"),
        (json.dumps(page(user_input=...)), "user_input is missing"),
        (json.dumps(page(agent_response={})), "agent_response must be a string, found an object"),
        (json.dumps(page()).encode("utf-16"), "not UTF-8"),
        (json.dumps(page(user_input="ü"), ensure_ascii=False).encode("latin-1"), "not UTF-8"),
        (b'{"user_input": "\xed\xa0\x80"}', "not UTF-8"),
        (b"\x00" * 40, "not valid JSON"),
    ],
)
def test_what_is_wrong_costs_its_own_line_alone(tmp_path: Path, line: str | bytes, reason: str) -> None:
    middle = line if isinstance(line, bytes) else line.encode()
    middle = middle.replace(b"\n", b" ")
    path = written(tmp_path, b"\n".join([json.dumps(page(0)).encode(), middle, json.dumps(page(2)).encode()]))
    (error,) = errors(path, user=None)
    assert error.startswith("line 2: ")
    assert reason in error
    assert len(items(path, user=None)) == 3


@pytest.mark.parametrize("name", ["messages", "claude", "mem0", "chatgpt", "locomo"])
def test_nesting_10_000_deep_is_an_error_in_any_document(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, '[{"metadata": %s}]' % ("[" * 10_000 + "]" * 10_000))
    try:
        assert len(errors(path, name)) == 1
    except InputError as error:
        assert "nested more than" in str(error)


def test_a_page_of_5_mb_is_kept_and_one_above_the_limit_names_it(tmp_path: Path) -> None:
    text = "word " * (1 << 20)
    with open_fake(tmp_path / "store", workers=False) as memory:
        path = written(tmp_path, [page(user_input=text)])
        (found,) = through_store(memory, path)
        assert found["user_input"] == text
        for large in ({"user_input": "x" * (16 << 20)}, {"metadata": {"a": "x" * (16 << 20)}}):
            with pytest.raises(InputError, match=r"16,777,\d+ bytes, store\.max_page_bytes is 16,777,216; split it"):
                memory.add(**page(**large))
        assert memory.stats().pages == 1
    with open_fake(tmp_path / "store", workers=False, store__max_page_bytes=32 << 20) as memory:
        memory.add(**page(**large))
        assert [len(one.user_input) for one in all_pages(memory)] == [len(text), len("question 0")]


def test_a_line_may_be_six_times_as_long_as_the_largest_page(tmp_path: Path) -> None:
    """No page in the limit is refused because of how it is written."""
    path = written(tmp_path, [page(user_input="\x01" * 1000)])
    assert len(path.read_bytes()) > 6000
    assert records(path, max_page_bytes=1024)[0].user_input == "\x01" * 1000


def test_metadata_are_nested_as_deeply_as_they_can_be_read_back(memory: MemoryPipeline) -> None:
    accepted, nested = 0, list[Any]()
    for _ in range(1100):
        nested = [nested]
        try:
            memory.add("deep", "", "", metadata={"a": nested})
        except InputError:
            continue
        accepted += 1
    assert 500 < accepted < 1000
    assert len(all_pages(memory, "deep")) == accepted


def test_metadata_that_cannot_be_stored_is_told_by_add(memory: MemoryPipeline) -> None:
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    for metadata in ({"a": nested}, {"a": {1, 2}}, {"a": object()}, {"a": 2**65}, {"a": {(1, 2): 3}}):
        with pytest.raises(InputError, match="can't be stored"):
            memory.add("u", "", "", metadata=metadata)


def test_a_file_of_a_page_of_200_mb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(b'{"user_id": "u", "agent_response": "", "user_input": "')
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + json.dumps(page()).encode())
    program = """
import sys
from tests.ingest.common import items
from pathlib import Path
first, second = items(Path(sys.argv[1]), max_page_bytes=1 << 20)
assert "store.max_page_bytes" in str(first), first
assert second.user_input == "question 0"
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
sys.stdout.write(peak)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000  # KiB
