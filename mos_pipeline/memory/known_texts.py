"""Texts that were embedded, each with a row of the vector pool that holds its vector now.

An equal text gets a copy of that row, and is not embedded again. A text is told by 8 bytes of its BLAKE2b digest: of
2**32 different ones two have the same. The table is bounded; texts that have not come for the longest time go first,
and so does, at once, what is told to be ``gone``: a row that was given back is never found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

__all__ = ["NO_DIGEST", "KnownTexts", "digest_of"]

NO_DIGEST = 0  # of a text that is not remembered
DIGEST_BYTES = 8


def digest_of(text: str, max_chars: int) -> int:
    """Return what tells ``text`` from others, 1 to 2**64 - 1; of what lies behind ``max_chars`` nothing is embedded."""
    # Lone surrogates, which are no text to a model, are all the same to it.
    data = text[:max_chars].encode("utf-8", "replace")
    return int.from_bytes(blake2b(data, digest_size=DIGEST_BYTES).digest(), "little") or 1


class KnownTexts:
    """Digests and rows, up to a limit. Some 260 bytes each."""

    def __init__(self, limit: int) -> None:
        """Know at most ``limit`` texts, 0 or more."""
        self._limit = limit
        self._rows: OrderedDict[int, int] = OrderedDict()  # those that came last at the end
        self._digests: dict[int, int] = {}  # by row

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether another text takes the place of one."""
        return len(self._rows) >= self._limit

    def find(self, digest: int) -> int | None:
        """Return a row with the text's vector, and let it be the last to go; None where it is not known."""
        row = self._rows.get(digest)
        if row is not None:
            self._rows.move_to_end(digest)
        return row

    def enter(self, digest: int, row: int) -> None:
        """Know that ``row`` has the text's vector from now on. What was known of either before is known no more."""
        if row in self._digests:
            self.gone((row,))
        before = self._rows.pop(digest, None)
        if before is not None:
            del self._digests[before]
        self._rows[digest], self._digests[row] = row, digest
        while len(self._rows) > self._limit:
            _, oldest = self._rows.popitem(last=False)
            del self._digests[oldest]

    def recall(self, digest: int, row: int) -> None:
        """Know a text of long ago likewise, if there is room and nothing known of it: it is the first to go again."""
        if not self.full and digest not in self._rows and row not in self._digests:
            self._rows[digest], self._digests[row] = row, digest
            self._rows.move_to_end(digest, last=False)

    def gone(self, rows: Iterable[int]) -> None:
        """Know no text by ``rows`` any more: they are given back, or get other vectors."""
        for row in rows:
            digest = self._digests.pop(row, None)
            if digest is not None:
                del self._rows[digest]
