"""Compressed input files: damage is told, and costs nothing of what was packed whole before it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.common import bounded_memory, edited, edits, first_difference, fuzzed
from tests.fuzz.inputs import FILES, LINES, corpus, drafts, outcome

BOUND = 16 << 20
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,  # as its own command does
}
NAMES = [name for name in FILES if name != "chat.json"]


def frames(name: str, packer: str, cuts: list[int]) -> list[tuple[bytes, bytes]]:
    """Return a file of the corpus in pieces, each as it is and packed."""
    data = corpus(name)
    places = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    return [(piece, PACKERS[packer](piece)) for piece in pieces]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", NAMES)
def test_whatever_happens_to_a_compressed_file(tmp_path: Path, name: str, packer: str) -> None:
    """In any number of frames; flipped, cut off, put together, or with something behind its end."""

    @fuzzed
    @given(cuts=st.lists(st.integers(0, 1 << 12), max_size=3), changes=edits)
    def check(cuts: list[int], changes: list[tuple[int, int, bytes]]) -> None:
        found = frames(name, packer, cuts)
        before = b"".join(packed for _, packed in found)
        after = edited(before, changes)
        same, plain = first_difference(before, after), b""
        for piece, packed in found:
            same -= len(packed)
            if same < 0:
                break
            plain += piece
        whole = plain if name not in LINES else plain[: plain.rfind(b"\n") + 1]
        expected = outcome(tmp_path / "input", whole, FILES[name]).records if whole.strip() else []
        with bounded_memory(BOUND):
            read = outcome(tmp_path / "input", after, FILES[name])
        assert drafts(read.records)[: len(expected)] == drafts(expected)

    check()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["memories-list.json", "chats.jsonl"])
def test_a_flipped_byte_is_told_unless_it_changes_nothing(tmp_path: Path, name: str, packer: str) -> None:
    packed = PACKERS[packer](corpus(name))
    whole = outcome(tmp_path / "input", packed, FILES[name])
    for place in range(len(packed)):
        for bit in (0x01, 0x80):
            flipped = packed[:place] + bytes([packed[place] ^ bit]) + packed[place + 1 :]
            found = outcome(tmp_path / "input", flipped, FILES[name])
            assert found.end or found.errors or drafts(found.records) == drafts(whole.records)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["memories.json", "left-out.jsonl"])
def test_cut_off_anywhere_it_is_told(tmp_path: Path, name: str, packer: str) -> None:
    whole = outcome(tmp_path / "input", corpus(name), FILES[name])
    parts = [packed for _, packed in frames(name, packer, [150, 200])]
    packed, ends = b"".join(parts), {len(b"".join(parts[:count])) for count in range(len(parts) + 1)}
    for end in range(1, len(packed)):
        found = outcome(tmp_path / "input", packed[:end], FILES[name])
        assert drafts(found.records) == drafts(whole.records)[: len(found.records)]
        assert found.end or found.errors or end in ends
