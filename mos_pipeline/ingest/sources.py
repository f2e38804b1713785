"""Which source a file is, so that reading it again goes on where it ended, even when it has grown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mos_pipeline.ingest.records import opened

__all__ = ["SourceIdentity", "identify"]

DIGEST_BYTES = 16
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """A source of pages, named by the content it had when it was first read.

    Attributes:
        digest: the first 16 bytes of the sha256 of the first ``length`` bytes of the file.
        length: bytes; the file may have become longer since.
        grown: whether it has.
    """

    digest: bytes
    length: int
    grown: bool

    @property
    def name(self) -> bytes:
        """The 24 bytes that are kept with each page: the digest, and the length as 8 bytes little endian."""
        return self.digest + self.length.to_bytes(8, "little")

    @staticmethod
    def parse_name(name: bytes) -> tuple[bytes, int]:
        """Return the (digest, length) that ``name`` holds: a known source, as ``identify`` takes it."""
        return name[:DIGEST_BYTES], int.from_bytes(name[DIGEST_BYTES:], "little")


def identify(path: Path, known: Iterable[tuple[bytes, int]]) -> SourceIdentity:
    """Return the known source that the file begins with, the longest one; else a new source with the file's content.

    The file is read once, however many sources are known.

    Args:
        path: a regular file.
        known: (digest, length) of the sources read so far.

    Raises:
        InputError: the file can't be read.
    """
    wanted: dict[int, set[bytes]] = {}
    for digest, length in known:
        if length > 0:  # every file begins with an empty one
            wanted.setdefault(length, set()).add(digest)
    *prefixes, (total, whole) = _digests(path, sorted(wanted))
    for length, digest in reversed(prefixes):
        if digest in wanted[length]:
            return SourceIdentity(digest, length, grown=length < total)
    return SourceIdentity(whole, total, grown=False)


def _digests(path: Path, lengths: list[int]) -> list[tuple[int, bytes]]:
    """Return (length, digest) of the file's beginnings of these lengths, as far as it reaches, and of all of it."""
    found = []
    hasher, read = hashlib.sha256(), 0
    marks = iter(lengths)
    mark = next(marks, None)
    with opened(path) as file:
        while chunk := file.read(min(CHUNK_BYTES, mark - read) if mark else CHUNK_BYTES):
            hasher.update(chunk)
            read += len(chunk)
            if read == mark:
                found.append((read, hasher.digest()[:DIGEST_BYTES]))
                mark = next(marks, None)
    found.append((read, hasher.digest()[:DIGEST_BYTES]))
    return found
