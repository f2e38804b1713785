"""Sources as the first version named them: by all that their file held when it was read first.

A name is 24 bytes: the first 16 of the sha256 of the file's first ``length`` bytes, and the length, little endian. To
know such a file again all of it has to be read, so new sources are named otherwise; stores that have old ones go on
with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from mos_pipeline.ingest.streams import Stream

__all__ = ["known_by_content"]

NAME_BYTES, DIGEST_BYTES = 24, 16
CHUNK_BYTES = 1 << 20


def known_by_content(stream: Stream, known: Iterable[bytes]) -> bytes | None:
    """Return the name of the known source that the file begins with, the longest one; None where there is none.

    The file is read once, as far as the longest source reaches, and not at all where none is that old.

    Raises:
        InputError: the file can't be read.
    """
    wanted: dict[int, set[bytes]] = {}
    for name in known:
        length = int.from_bytes(name[DIGEST_BYTES:], "little")
        if len(name) == NAME_BYTES and length > 0:  # every file begins with an empty one
            wanted.setdefault(length, set()).add(name)
    found = None
    for name in _names(stream, sorted(wanted)):
        found = name if any(name in names for names in wanted.values()) else found
    return found


def _names(stream: Stream, lengths: list[int]) -> Iterable[bytes]:
    """Yield the names of the file's beginnings of these lengths, ascending, as far as it reaches."""
    if not lengths:
        return
    hasher, read = hashlib.sha256(), 0
    with stream.stored() as file:
        for length in lengths:
            while read < length and (chunk := file.read(min(CHUNK_BYTES, length - read))):
                hasher.update(chunk)
                read += len(chunk)
            if read < length:
                return
            yield hasher.digest()[:DIGEST_BYTES] + length.to_bytes(NAME_BYTES - DIGEST_BYTES, "little")
