"""Whatever stands in an input file, it is read as records, or refused by an InputError that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.ingest import SourceRecord, read_source
from mos_pipeline.ingest.records import Spot
from tests.fuzz.common import bounded_memory, broken, first_difference, fuzzed

BOUND = 16 << 20
HERE = Spot("input", "")  # a place for people is another one each time a file is read
FILES = {"jsonl": "pages.jsonl", "locomo": "talk.json"}


def read(path: Path, data: bytes, format_: str) -> list[SourceRecord]:
    """Return the records before the first that can't be read."""
    path.write_bytes(data)
    found: list[SourceRecord] = []
    try:
        found.extend(read_source(path, format_, "someone"))
    except InputError as error:
        assert str(path) in str(error)
    return found


@pytest.mark.parametrize("format_", [*FILES, "auto"])
def test_whatever_stands_in_an_input_file(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "input"

    @fuzzed
    @given(files=broken(*(FILES.values() if format_ == "auto" else [FILES[format_]])))
    def check(files: tuple[bytes, bytes]) -> None:
        with bounded_memory(BOUND):
            read(path, files[1], format_)

    check()


@fuzzed
@given(files=broken("pages.jsonl"))
def test_lines_before_the_damage_are_read(tmp_path: Path, files: tuple[bytes, bytes]) -> None:
    before, after = files
    lines = before[: first_difference(before, after)].count(b"\n")
    whole = [
        record._replace(spot=HERE) for record in read(tmp_path / "input", before, "jsonl") if record.number < lines
    ]
    found = [record._replace(spot=HERE) for record in read(tmp_path / "input", after, "jsonl")]
    assert found[: len(whole)] == whole


_NAMES = """
user_id user_input agent_response timestamp metadata page_id sample_id conversation speaker_a speaker_b session_1
session_1_date_time speaker dia_id text blip_caption
"""
_KEYS = st.sampled_from(_NAMES.split())
_ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.text(max_size=4), inner, max_size=5),
    max_leaves=30,
)


@fuzzed
@given(value=_ANYTHING, format_=st.sampled_from([*FILES, "auto"]))
def test_whatever_values_records_have(tmp_path: Path, value: Any, format_: str) -> None:
    for data in (value, [value], [{"sample_id": "x", "conversation": value}]):
        read(tmp_path / "input", json.dumps(data).encode(), format_)


@pytest.mark.parametrize("format_", [*FILES, "auto"])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '[{"sample_id": "x", "conversation": {"speaker_a": "a", "speaker_b": "b", "session_' + "9" * 5000 + '": []}}]',
        '[{"sample_id": "x", "conversation": ' + "9" * 5000 + "}]",
        '{"user_id": ' + "9" * 5000 + "}",
        '[{"sample_id": 1e999}]',
        '"\\ud800"',
        "\0" * 1000,
    ],
    ids=range(8),
)
def test_absurd_files(tmp_path: Path, format_: str, text: str) -> None:
    assert read(tmp_path / "input", text.encode(), format_) == []
