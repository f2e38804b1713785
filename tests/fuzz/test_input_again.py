"""Reading again: what was left out, once it is mended; and from any record on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.cli.left_out import refused
from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest import SourceRecord
from mos_pipeline.ingest.quarantine import Quarantine
from tests.fuzz.common import EXAMPLES, broken, fuzzed
from tests.fuzz.inputs import FILES, drafts, outcome
from tests.fuzz.values import changed, elements, file_of
from tests.ingest.common import Store

ARRAYS = [name for name in FILES if name != "chat.json"]
RIGHT = {FILES[name]: elements(name)[0] for name in FILES}
PACKERS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, zstandard.compress]
NO_ID = "is missing; give each conversation one"  # they are known by their ids, but not in a quarantine


def some(name: str) -> st.SearchStrategy[list[Any]]:
    """Return elements, some of which are wrong; the first one is right, and says what format it is."""
    right = st.sampled_from(elements(name))
    return st.lists(right | changed(name), max_size=4).map(lambda rest: [elements(name)[0], *rest])


def left_out(path: Path, errors: list[RecordError]) -> list[dict[str, Any]]:
    """Leave records out, as a new quarantine at ``path``; return its entries."""
    path.unlink(missing_ok=True)
    with Quarantine(path) as quarantine:
        for error in errors:
            quarantine.put(error)
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ARRAYS)
def test_what_was_left_out_stays_wrong_until_it_is_mended(tmp_path: Path, name: str) -> None:
    left = tmp_path / "left"

    @fuzzed
    @given(found=some(name), ascii_only=st.booleans(), as_text=st.booleans())
    def check(found: list[Any], ascii_only: bool, as_text: bool) -> None:
        errors = outcome(tmp_path / "input", file_of(name, found, ascii_only=ascii_only), FILES[name]).errors
        if not errors:
            return
        entries = left_out(left, errors)
        assert [entry["place"] for entry in entries] == [error.place for error in errors]
        again = outcome(left, left.read_bytes())
        told = {error.line: (error.reason, error.raw, error.format) for error in again.errors}
        for line, error in enumerate(errors, 1):
            if NO_ID not in error.reason:
                assert told[line] == (error.reason, error.raw, error.format)
        for entry in entries:
            entry["raw"] = json.dumps(RIGHT[entry["format"]]) if as_text else RIGHT[entry["format"]]
        mended = outcome(left, b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        assert (mended.end, mended.errors) == (None, [])
        assert {record.number for record in mended.records} == set(range(len(entries)))

    check()


@fuzzed
@given(files=broken("left-out.jsonl"), raw=st.none() | st.binary(max_size=20))
def test_whatever_stands_in_a_quarantine_it_is_appended_to_or_left_alone(
    tmp_path: Path, files: tuple[bytes, bytes], raw: bytes | None
) -> None:
    left, before = tmp_path / "left", files[1]
    left.write_bytes(before)
    error = RecordError("", "chats", "line 3", 3, None, "it is wrong")
    error.raw, error.format = raw, "jsonl"
    try:
        with Quarantine(left) as quarantine:
            quarantine.put(error)
    except InputError as told:
        assert str(told).startswith(f"{left}: is there and holds something else")
        assert left.read_bytes() == before
        return
    after = left.read_bytes()
    whole = before.rfind(b"\n") + 1  # what comes behind is a line that was mended, or torn by a kill
    assert after.startswith(before[:whole])
    entry = json.loads(after.splitlines()[-1])
    assert entry["raw"] == (None if raw is None else raw.decode("utf-8", "surrogateescape").rstrip("\r\n"))
    assert len(after.splitlines()) - len(before[:whole].splitlines()) in {1, 2}
    with Quarantine(left) as quarantine:
        quarantine.put(error)
    assert left.read_bytes() == after


@pytest.mark.parametrize("name", FILES)
def test_what_a_store_refuses_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    left = tmp_path / "left"

    @fuzzed
    @given(found=some(name))
    def check(found: list[Any]) -> None:
        read = outcome(tmp_path / "input", file_of(name, found), FILES[name])
        left_out(left, [refused(record, InputError("it is too large")) for record in read.records])
        again = outcome(left, left.read_bytes())
        assert not again.errors
        assert drafts(again.records) == drafts(read.records)

    check()


@pytest.mark.parametrize("name", FILES)
def test_from_any_record_on_the_rest_is_read_and_only_that(tmp_path: Path, name: str) -> None:
    @settings(fuzzed, max_examples=max(20, EXAMPLES // 2))
    @given(found=some(name), pack=st.sampled_from(PACKERS))
    def check(found: list[Any], pack: Callable[[bytes], bytes]) -> None:
        data = pack(file_of(name, found))
        whole = outcome(tmp_path / "input", data, FILES[name])
        for at, item in enumerate(whole.items):
            if isinstance(item, SourceRecord):
                rest = outcome(tmp_path / "input", data, FILES[name], item.position).items
                assert keys(rest) == keys(whole.items[at:])
                after = outcome(tmp_path / "input", data, FILES[name], item.position + 1).items
                assert keys(after) == keys(whole.items[at + 1 :])

    check()


def keys(items: list[SourceRecord | RecordError]) -> list[object]:
    return [str(item) if isinstance(item, RecordError) else (item.position, *drafts([item])) for item in items]


@pytest.mark.parametrize("name", FILES)
def test_however_often_it_is_interrupted_each_record_is_taken_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "input"

    @fuzzed
    @given(found=some(name), pack=st.sampled_from(PACKERS), cuts=st.lists(st.integers(0, 4), max_size=4))
    def check(found: list[Any], pack: Callable[[bytes], bytes], cuts: list[int]) -> None:
        path.write_bytes(pack(file_of(name, found)))
        whole, store = Store(), Store()
        take(whole)
        for cut in cuts:
            take(store, cut)
        take(store)
        assert store.texts == whole.texts
        take(store)
        assert store.texts == whole.texts

    def take(store: Store, most: int = 1 << 30) -> None:
        try:
            store.take(path, most, format=FILES[name])
        except InputError as error:
            assert not isinstance(error, RecordError)

    check()
