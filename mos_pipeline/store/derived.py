"""Bodies of the frames that hold derived data by page: vectors, words, why a page was set aside.

Each layout is written and read in one place, and forgotten pages are taken out of it beside that: compaction, which
runs in the writer, need not know what the data means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.messages import decode, encode
from mos_pipeline.store.codec import FrameKind, pack_vectors, unpack_vectors

__all__ = [
    "PAGEWISE",
    "PageSet",
    "VectorFrame",
    "WordFrame",
    "decode_aside",
    "decode_vectors",
    "decode_words",
    "encode_aside",
    "encode_vectors",
    "encode_words",
    "without_pages",
]

# Kinds of frames that hold data by page.
PAGEWISE = frozenset((FrameKind.VECTORS, FrameKind.WORDS, FrameKind.ASIDE))


class VectorFrame(NamedTuple):
    """Vectors of pages of any scopes.

    Attributes:
        seqs: int64 (n,).
        vectors: float16 (n, dimension), L2-normalised.
        digests: of the texts that were embedded, see ``memory.known_texts``, uint64 (n,); 0 where that is not known, as
            in the first form of the frame, which has none.
    """

    seqs: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]
    digests: npt.NDArray[np.uint64]

    def where(self, which: npt.NDArray[np.bool_]) -> VectorFrame:
        """Return the pages that ``which``, bool (n,), marks."""
        return VectorFrame(self.seqs[which], self.vectors[which], self.digests[which])


class WordFrame(NamedTuple):
    """Words of pages of any scopes, those of one scope ascending.

    Attributes:
        seqs: int64 (n,).
        sizes: distinct words of each page, uint32 (n,).
        hashes: uint32 (sum of sizes,): word hashes, page after page.
        counts: uint8 (sum of sizes,).
        sittings: the number of each page's sitting in its scope, uint32 (n,); (0,) in the first form of the frame.
    """

    seqs: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.uint32]
    hashes: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint8]
    sittings: npt.NDArray[np.uint32]


class PageSet:
    """A set of page numbers, asked about many at once."""

    def __init__(self, seqs: Iterable[int]) -> None:
        self._seqs = np.sort(np.fromiter(seqs, np.int64))

    def __len__(self) -> int:
        return len(self._seqs)

    def among(self, seqs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return for each of ``seqs`` (n,) whether it is in the set."""
        at = np.searchsorted(self._seqs, seqs)
        found = np.zeros(len(seqs), bool)
        inside = at < len(self._seqs)
        found[inside] = self._seqs[at[inside]] == seqs[inside]
        return found

    def covers(self, seqs: Sequence[int]) -> bool:
        """Return whether all of ``seqs`` are in the set."""
        return bool(self.among(np.array(seqs, np.int64)).all())

    def within(self, start: int, stop: int) -> list[int]:
        """Return those from ``start`` to ``stop - 1``, ascending."""
        first, last = np.searchsorted(self._seqs, (start, stop)).tolist()
        found: list[int] = self._seqs[first:last].tolist()
        return found


def encode_vectors(frame: VectorFrame) -> bytes:
    """Return the frame body for vectors of pages."""
    seqs, vectors, digests = frame
    columns = seqs.astype("<i8").tobytes(), vectors.shape[1], pack_vectors(vectors), digests.astype("<u8").tobytes()
    return encode(columns)


def decode_vectors(body: bytes) -> VectorFrame:
    """Return what ``encode_vectors`` was given."""
    packed, dimension, vectors, *more = decode(body)
    seqs = np.frombuffer(packed, "<i8")
    digests = np.frombuffer(more[0], "<u8") if more else np.zeros(len(seqs), np.uint64)
    if len(more) > 1 or len(digests) != len(seqs):
        raise ValueError(f"{len(more)} columns more, {len(digests)} digests of {len(seqs)} pages")
    return VectorFrame(seqs, unpack_vectors(vectors, dimension), digests)


def encode_words(analyser: int, frame: WordFrame) -> bytes:
    """Return the frame body for words, marked with the number of the ``analyser`` that found them."""
    seqs, sizes, hashes, counts, sittings = frame
    columns = (seqs.astype("<i8"), sizes.astype("<u4"), hashes.astype("<u4"), counts, sittings.astype("<u4"))
    return encode([analyser, *(column.tobytes() for column in columns)])


def decode_words(body: bytes) -> tuple[int, WordFrame]:
    """Return what ``encode_words`` was given."""
    analyser, seqs, sizes, hashes, counts, *sittings = decode(body)
    if len(sittings) > 1:
        raise ValueError(f"{len(sittings) - 1} columns too many")
    frame = WordFrame(
        np.frombuffer(seqs, "<i8"),
        np.frombuffer(sizes, "<u4"),
        np.frombuffer(hashes, "<u4"),
        np.frombuffer(counts, np.uint8),
        np.frombuffer(sittings[0] if sittings else b"", "<u4"),
    )
    return analyser, frame


def encode_aside(seq: int, reason: str) -> bytes:
    """Return the frame body that says why a page was set aside."""
    return encode([seq, reason])


def decode_aside(body: bytes) -> tuple[int, str]:
    """Return what ``encode_aside`` was given."""
    seq, reason = decode(body)
    return seq, reason


def without_pages(kind: FrameKind, body: bytes, gone: PageSet) -> bytes | None:
    """Return the body of a ``PAGEWISE`` frame without the pages ``gone``: itself where it speaks of none of them.

    Returns:
        The body that is left, or None where it speaks of no other page.

    Raises:
        ValueError, TypeError: it is no body of that kind.
    """
    return _FILTERS[kind](body, gone)


def _left_vectors(body: bytes, gone: PageSet) -> bytes | None:
    """Whatever follows the vectors are columns, with a row for each page."""
    seqs, dimension, vectors, *more = decode(body)
    kept = _kept(seqs, gone)
    if kept.all():
        return body
    left = np.frombuffer(vectors, np.uint8).reshape(2, len(kept), dimension)[:, kept].tobytes()
    columns = (_rows(column, kept) for column in more)
    return encode([_rows(seqs, kept), dimension, left, *columns]) if kept.any() else None


def _left_words(body: bytes, gone: PageSet) -> bytes | None:
    """Whatever follows the four columns is more of them, with a row for each page."""
    analyser, seqs, sizes, hashes, counts, *more = decode(body)
    kept = _kept(seqs, gone)
    if kept.all():
        return body
    words = np.repeat(kept, np.frombuffer(sizes, "<u4"))
    columns = [_rows(seqs, kept), _rows(sizes, kept), _rows(hashes, words), _rows(counts, words)]
    return encode([analyser, *columns, *(_rows(column, kept) for column in more)]) if kept.any() else None


def _left_aside(body: bytes, gone: PageSet) -> bytes | None:
    seq, _ = decode_aside(body)
    return None if gone.within(seq, seq + 1) else body


def _kept(seqs: bytes, gone: PageSet) -> npt.NDArray[np.bool_]:
    return ~gone.among(np.frombuffer(seqs, "<i8"))


def _rows(column: bytes, kept: npt.NDArray[np.bool_]) -> bytes:
    """Return the kept ones of a column's rows, whatever their width."""
    width = len(column) // len(kept) if len(kept) else 0
    return np.frombuffer(column, np.uint8).reshape(len(kept), width)[kept].tobytes()


_FILTERS: dict[FrameKind, Callable[[bytes, PageSet], bytes | None]] = {
    FrameKind.VECTORS: _left_vectors,
    FrameKind.WORDS: _left_words,
    FrameKind.ASIDE: _left_aside,
}
