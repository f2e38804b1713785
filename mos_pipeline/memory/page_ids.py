"""Page ids that take no memory, and those that callers gave."""

from __future__ import annotations

import re
from collections.abc import Collection

from mos_pipeline.errors import InputError

__all__ = ["PageIds"]

SEQ_DIGITS = 12


class PageIds:
    """From page ids to page numbers and back.

    A page whose caller gave no id has an automatic one, ``{store_tag}-{seq:012x}``, which takes no memory: it is read
    back from its text. Ids that callers give are kept in a dict. They may look like automatic ids of this store (pages
    exported from a backup and added again), so these rules keep every id with one page for ever:

    - the page that was accepted first keeps the id: where a given id is the automatic one of a lower number, the given
      one is refused; where it is that of a number to come, that page's automatic id gets a ``+`` appended, and another
      for as long as that is taken too;
    - text that looks like an automatic id means a page only if the page was accepted and has that very id: not before
      it is there, and not where its caller gave it another;
    - the id of a forgotten page means no page, and may be given to a new one; the library itself never makes it again.

    Pages are registered in the order of their numbers, also when they are read back from disk: what an id means depends
    on it. Changing takes a lock of the owner; ``id_of`` and ``resolve`` do not.

    Args:
        store_tag: 16 hexadecimal digits in lower case, different for every store.

    Raises:
        InputError: the tag is something else.
    """

    __slots__ = ("_automatic", "_count", "_given", "_seqs", "_spent", "_tag")

    def __init__(self, store_tag: str) -> None:
        if not re.fullmatch("[0-9a-f]{16}", store_tag):
            raise InputError(f"{store_tag!r} is no store's tag; it has 16 hexadecimal digits in lower case")
        self._tag = store_tag
        self._automatic = re.compile(rf"{store_tag}-([0-9a-f]{{{SEQ_DIGITS}}})\+*").fullmatch
        self._seqs: dict[str, int] = {}
        self._given = bytearray()  # a bit for each page: did its caller give it an id?
        self._spent: set[str] = set()  # ids of forgotten pages that are the automatic ones of higher numbers
        self._count = 0

    def register(self, page_id: str | None, seq: int) -> None:
        """Enter an accepted page, whether its caller gave it an id or not (None).

        Raises:
            InputError: ``seq`` is below that of a page entered before, or an earlier page has the id; nothing was
                changed.
        """
        if seq < self._count:
            raise InputError(f"page {seq} comes after page {self._count - 1}; register pages in order")
        if page_id is not None:
            holder = self._holder(page_id, seq)
            if holder is not None:
                raise InputError(f"page {seq}: the id {page_id!r} is that of page {holder}; give each page its own")
            self._seqs[page_id] = seq
            self._mark(seq)
        self._count = seq + 1

    def lose(self, seq: int) -> None:
        """Enter a page that can't be read any more: its automatic id means no page, and may be given to another."""
        self.register(None, seq)
        self._mark(seq)

    def forget(self, seq: int, given_id: str | None) -> None:
        """Let the id of page ``seq``, the one its caller gave or None, mean no page from now on.

        Raises:
            InputError: there is no such page, or ``given_id`` is not its id; nothing was changed.
        """
        if not 0 <= seq < self._count or (given_id is not None and self._seqs.get(given_id) != seq):
            raise InputError(f"page {seq} can't be forgotten under the id {given_id!r}: that is not its id")
        self._mark(seq)
        if given_id is None:
            return
        automatic = self._parsed(given_id)
        if automatic is not None and automatic > seq:  # the page of that number makes room for it, and keeps its id so
            self._spent.add(given_id)
        del self._seqs[given_id]

    def release(self, page_id: str) -> None:
        """Let an id mean no page from now on; one that means none is fine."""
        seq = self.resolve(page_id)
        if seq is not None:
            self.forget(seq, page_id if page_id in self._seqs else None)

    def forget_all(self, seqs: Collection[int]) -> None:
        """Let the ids of pages mean no page from now on, whatever they are."""
        given = {seq: page_id for page_id, seq in self._seqs.items() if seq in seqs}
        for seq in seqs:
            self.forget(seq, given.get(seq))

    def _mark(self, seq: int) -> None:
        """Note that page ``seq`` does not have its automatic id."""
        byte, bit = divmod(seq, 8)
        self._given.extend(bytes(max(0, byte + 1 - len(self._given))))
        self._given[byte] |= 1 << bit

    def resolve(self, page_id: str) -> int | None:
        """Return the number of the accepted page with this id, or None where there is none."""
        return self._holder(page_id, self._count)

    def id_of(self, seq: int, given: str | None) -> str:
        """Return the id of page ``seq``: the one its caller gave, or the automatic one where that is None."""
        if given is not None:
            return given
        page_id = f"{self._tag}-{seq:0{SEQ_DIGITS}x}"
        while page_id in self._spent or self._seqs.get(page_id, seq) < seq:
            page_id += "+"
        return page_id

    def _holder(self, page_id: str, count: int) -> int | None:
        """Return the page below ``count`` that has the id."""
        seq = self._seqs.get(page_id)
        if seq is not None:
            return seq
        seq = self._parsed(page_id)
        if seq is None or seq >= count or self.has_given(seq) or self.id_of(seq, None) != page_id:
            return None
        return seq

    def _parsed(self, page_id: str) -> int | None:
        match = self._automatic(page_id)
        return int(match[1], 16) if match else None

    def has_given(self, seq: int) -> bool:
        """Return whether page ``seq`` does not have its automatic id: its caller gave it one, or it is gone."""
        byte, bit = divmod(seq, 8)
        return byte < len(self._given) and bool(self._given[byte] >> bit & 1)
