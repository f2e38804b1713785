"""What tests of compaction share: a store to compact, and a look at what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mos_pipeline.messages import decode_record, decode_tombstone, encode, encode_tombstone, pack_seqs
from mos_pipeline.store.codec import FrameKind, decode_body, parse_header, unpack_pages
from mos_pipeline.store.compaction import Compaction, CompactionRequest
from mos_pipeline.store.derived import VectorFrame, WordFrame, encode_aside, encode_vectors, encode_words
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.pins import without_unpinned
from mos_pipeline.store.recovery import open_store
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.segments import FrameAddress, SegmentReader
from tests.store.common import CONFIG, made_folder, packed

ANALYSER = 7


def secret(seq: int) -> str:
    """Text that is found nowhere but in what speaks of page ``seq``."""
    return f"secret-{seq:06d}-"


def page(seq: int) -> bytes:
    return encode([f"user {seq % 3}", "assistant", secret(seq), "", "", None, secret(seq), [b"file", seq]])


def vector(seq: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    return np.full(4, seq, np.float16)


class Compactable:
    """A store, written to directly, frame by frame."""

    def __init__(self, root: Path, segment_bytes: int = 1 << 20) -> None:
        self.folder: StoreFolder = made_folder(root)
        self.writer = SegmentWriter(self.folder, segment_bytes, 3)
        self.next_seq = 0

    def add(self, count: int) -> list[int]:
        """Write a frame of pages, and what is derived from them."""
        seqs = list(range(self.next_seq, self.next_seq + count))
        self.next_seq += count
        self.put(FrameKind.PAGES, packed(seqs[0], [page(seq) for seq in seqs]), seqs[-1])
        columns = np.array(seqs, np.int64)
        vectors = VectorFrame(columns, np.array([vector(seq) for seq in seqs]), columns.astype(np.uint64))
        self.put(FrameKind.VECTORS, encode_vectors(vectors), seqs[-1])
        hashes = np.repeat(columns, 2).astype(np.uint32)
        words = WordFrame(columns, np.full(count, 2, np.uint32), hashes, _ones(count), columns.astype(np.uint32))
        self.put(FrameKind.WORDS, encode_words(ANALYSER, words), seqs[-1])
        self.put(FrameKind.ASIDE, encode_aside(seqs[0], secret(seqs[0])), seqs[0])
        self.put(FrameKind.BATCH, encode([secret(seq) for seq in seqs]), seqs[-1])
        return seqs

    def forget(self, seqs: Iterable[int]) -> None:
        self.put(FrameKind.PAGES, packed(self.next_seq, [encode_tombstone(sorted(seqs))]), self.next_seq)
        self.next_seq += 1

    def put(self, kind: FrameKind, body: bytes, last_page: int = -1) -> FrameAddress:
        return self.writer.append(kind, body, last_page)

    @property
    def segments(self) -> tuple[int, ...]:
        return self.writer.manifest.segments

    def begin(
        self, forgotten: Iterable[int], segments: Iterable[int] | None = None, superseded: FrameAddress | None = None
    ) -> Compaction:
        payload = {
            "segments": list(self.segments if segments is None else segments),
            "forgotten": pack_seqs(sorted(forgotten)),
            "superseded": superseded and list(superseded),
        }
        return Compaction(self.folder, self.writer, CompactionRequest.from_payload(payload))

    def compact(
        self, forgotten: Iterable[int], segments: Iterable[int] | None = None, superseded: FrameAddress | None = None
    ) -> dict[str, Any]:
        compaction = self.begin(forgotten, segments, superseded)
        for _ in compaction.steps():
            pass
        return compaction.commit()

    def sweep(self) -> None:
        self.writer.replace_manifest(without_unpinned(self.folder, self.writer.manifest))


def _ones(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.ones(2 * count, np.uint8)


def frames(folder: StoreFolder, numbers: Iterable[int]) -> list[Frame]:
    reader, found = SegmentReader(folder), list[Frame]()
    for number in numbers:
        for item in reader.scan(number):
            assert isinstance(item, Frame)
            found.append(item)
    reader.close()
    return found


def records(found: Iterable[Frame]) -> dict[int, bytes]:
    """By number, what frames of pages hold."""
    held: dict[int, bytes] = {}
    for frame in found:
        if frame.kind == FrameKind.PAGES:
            first_seq, _, bodies = unpack_pages(frame.body)
            held.update(enumerate(bodies, first_seq))
    return held


def texts(root: Path) -> dict[int, str]:
    """Open a store and return its pages that are not forgotten; nothing of it may be damaged."""
    with open_store(root, CONFIG) as store:
        held, forgotten = dict[int, str](), set[int]()
        for frame in store.frames():
            if frame.kind == FrameKind.PAGES:
                first_seq, heads, bodies = unpack_pages(frame.body)
                forgotten.update(heads.forgotten)
                for seq, body in enumerate(bodies, first_seq):
                    if body and decode_tombstone(body) is None:
                        held[seq] = decode_record(body).user_input
        assert store.damage == []
        assert store.torn == []
    return {seq: text for seq, text in held.items() if seq not in forgotten}


def all_bytes(root: Path) -> bytes:
    """Everything in a folder, frames unpacked too, wherever in a file they lie."""
    pieces = list[bytes]()
    for path in root.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        pieces.append(data)
        at = data.find(b"MOSF")
        while at >= 0:
            header = parse_header(data[at:])
            if header is not None:
                pieces.append(decode_body(header, data[at + 32 : at + 32 + header.stored])[1])
            at = data.find(b"MOSF", at + 1)
    return b"".join(pieces)
