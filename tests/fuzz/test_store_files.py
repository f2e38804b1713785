"""Whatever the bytes of a store's files are, they are read as what they were, or told to be damaged: nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import StoreDamagedError, StoreError, StoreVersionError
from mos_pipeline.messages import encode
from mos_pipeline.store import journal as journal_module
from mos_pipeline.store.codec import FrameKind, decode_frame, encode_frame, unpack_pages, unpack_records
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.scanning import Frame, scan_frames
from tests.fuzz.common import CORPUS, EXAMPLES, bounded_memory, broken, first_difference, fuzzed
from tests.store.common import flip, from_bytes
from tests.support import all_pages, open_fake

BOUND = 16 << 20


def load(folder: Path, text: bytes) -> Manifest | None:
    (folder / "MANIFEST").write_bytes(text)
    try:
        return Manifest.load(StoreFolder(folder))
    except (StoreDamagedError, StoreVersionError):
        return None


@fuzzed
@given(files=broken("MANIFEST"))
def test_whatever_stands_in_a_manifest(tmp_path: Path, files: tuple[bytes, bytes]) -> None:
    before, after = files
    with bounded_memory(BOUND):
        assert load(tmp_path, after) in (None, load(tmp_path, before))


def test_a_manifest_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    text = (CORPUS / "MANIFEST").read_bytes()
    whole = load(tmp_path, text)
    assert whole is not None
    for place in range(len(text)):
        flipped = text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]
        assert load(tmp_path, flipped) in (None, whole)


@fuzzed
@given(content=st.recursive(st.none() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=4)))
def test_whatever_values_a_manifest_has(tmp_path: Path, content: Any) -> None:
    text = json.loads((CORPUS / "MANIFEST").read_bytes())
    del text["checksum"]  # as in those of the first versions
    for key in text:
        load(tmp_path, json.dumps({**text, key: content}).encode())


def records(path: Path) -> list[tuple[int, int, bytes]]:
    journal = Journal.open(path)
    try:
        return [(offset, seq, body) for offset, seq, body in journal.records()]
    finally:
        journal.close()


@fuzzed
@given(files=broken("00000001.journal"))
def test_whatever_happened_to_a_journal(tmp_path: Path, files: tuple[bytes, bytes]) -> None:
    path, (before, after) = tmp_path / "00000001.journal", files
    path.write_bytes(before)
    whole = [record for record in records(path) if end_of(record) <= first_difference(before, after)]
    path.write_bytes(after)
    with bounded_memory(BOUND):
        found = records(path)
    assert found[: len(whole)] == whole
    assert [seq for _, seq, _ in found] == sorted({seq for _, seq, _ in found})


def end_of(record: tuple[int, int, bytes]) -> int:
    return record[0] + RECORD_OVERHEAD + len(record[2])


def test_a_page_that_looks_like_records_costs_no_endless_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its 16 bytes seem to be the head of half a megabyte, whose checksum would have to be computed."""
    decoy = struct.pack("<IIQ", 1, 1 << 19, 2) * (1 << 16)
    path = tmp_path / "00000001.journal"
    journal = Journal.create(path, 1 << 22)
    for seq, body in enumerate([b"first", decoy, b"last"]):
        journal.append(seq, body)
    journal.close()
    flip(path, RECORD_OVERHEAD + len(b"first") + RECORD_OVERHEAD + 5)
    reckoned: list[int] = []

    def counted(data: bytes, *before: int) -> int:
        reckoned.append(len(data))
        return crc32(data, *before)

    monkeypatch.setattr(journal_module, "crc32", counted)
    assert [(seq, body) for _, seq, body in records(path)] == [(0, b"first"), (2, b"last")]
    assert sum(reckoned) < 5 * journal_module.SEARCH_BYTES


@fuzzed
@given(files=broken("00000001.segment"))
def test_whatever_happened_to_a_segment(files: tuple[bytes, bytes]) -> None:
    before, after = files
    same = first_difference(before, after)
    whole = [frame for frame in frames(before) if frame.offset + frame.length <= same]
    with bounded_memory(BOUND):
        assert frames(after)[: len(whole)] == whole


def frames(data: bytes) -> list[Frame]:
    return [item for item in scan_frames(from_bytes(data), len(data)) if isinstance(item, Frame)]


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=16) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


@fuzzed
@given(body=st.binary(max_size=200) | _VALUES.map(encode), raw=st.none() | st.integers(0, (1 << 32) - 1))
def test_whatever_a_frame_holds(body: bytes, raw: int | None) -> None:
    """Under checksums that are right, as a fault of a program leaves them."""
    frame = encode_frame(FrameKind.PAGES, body, 3)
    if raw is not None:
        head = frame[:12] + struct.pack("<I", raw) + frame[16:28]
        frame = head + struct.pack("<I", crc32(head)) + frame[32:]
    with bounded_memory(BOUND):
        try:
            _, unpacked = decode_frame(frame)
        except StoreDamagedError:
            return
        for unpack in (unpack_pages, unpack_records):
            try:
                unpack(unpacked)
            except StoreDamagedError:
                continue


def test_a_frame_that_does_not_tell_its_size_is_not_given_what_its_header_asks_for() -> None:
    stored = zstandard.ZstdCompressor(write_content_size=False).compress(b"short")
    head = struct.pack("<4sBBBBIIIq", b"MOSF", 1, FrameKind.PAGES, 0, 0, len(stored), (1 << 32) - 1, crc32(stored), 0)
    with bounded_memory(BOUND), pytest.raises(StoreDamagedError):
        decode_frame(head + struct.pack("<I", crc32(head)) + stored)


@pytest.mark.parametrize("body", [encode([0, [[], b"", [], []], []]), encode("no pages"), b"\xc1", b""])
def test_a_frame_that_holds_something_else_costs_itself(tmp_path: Path, body: bytes) -> None:
    with open_fake(tmp_path / "store", workers=False) as memory:
        memory.add("ann", "first", "yes")
    folder = StoreFolder(tmp_path / "store")
    manifest = Manifest.load(folder).with_segment(1)
    folder.segment(1).write_bytes(encode_frame(FrameKind.PAGES, body, 3, 0))
    manifest.save(folder)
    with open_fake(tmp_path / "store", workers=False) as memory:
        assert [page.user_input for page in all_pages(memory)] == ["first"]
        if body != encode([0, [[], b"", [], []], []]):
            assert any("00000001.segment, offset 0" in told for told in memory.stats().damage)
    with open_fake(tmp_path / "store", workers=False, read_only=True) as memory:
        assert [page.user_input for page in all_pages(memory)] == ["first"]


@settings(fuzzed, max_examples=max(20, EXAMPLES // 4))
@given(files=broken("00000001.segment"), more=broken("00000001.journal"))
def test_a_store_of_broken_files_is_opened_or_refused(
    tmp_path: Path, files: tuple[bytes, bytes], more: tuple[bytes, bytes]
) -> None:
    folder = StoreFolder(tmp_path / "store")
    folder.create()
    folder.manifest.write_bytes((CORPUS / "MANIFEST").read_bytes())
    folder.segment(1).write_bytes(files[1])
    folder.journal(1).write_bytes(more[1])
    try:
        with open_fake(folder.root, workers=False) as memory:
            all_pages(memory)
    except StoreError as error:
        pytest.fail(f"not opened: {error}")
    finally:
        for path in (*folder.aside.iterdir(), *folder.journals.iterdir()):
            path.unlink()
