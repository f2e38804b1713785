"""All pages of a store, in columns, and their ids."""

from __future__ import annotations

import re
from array import array

import numpy as np
from numpy.typing import NDArray

from mos_pipeline.errors import InputError

__all__ = ["PageIds", "PageTable"]

NO_ROW = -1
LOST = (1 << 32) - 1  # the scope of pages that can't be read any more
SEQ_DIGITS = 12


class PageTable:
    """What is known of every page, by its number: its scope and its vector; and each scope's pages.

    Numbers begin with 0 and have no holes. Some 21 bytes a page and 300 a scope. One thread may change the table
    while others read it: an answer is a state that was.
    """

    __slots__ = ("_by_scope", "_embedded", "_rows", "_scopes")

    def __init__(self) -> None:
        self._embedded = 0
        self._scopes = array("I")
        self._rows = array("q")
        self._by_scope: dict[int, _Seqs] = {}

    def __len__(self) -> int:
        return len(self._scopes)

    def append(self, seq: int, scope: int) -> None:
        """Enter the next page.

        Raises:
            InputError: ``seq`` is not the next number, or ``scope`` not a number from 0 to 2**32 - 1.
        """
        if seq != len(self._scopes):
            raise InputError(f"page {seq} can't follow page {len(self._scopes) - 1}; page numbers have no holes")
        try:
            self._scopes.append(scope)
        except OverflowError:
            raise InputError(f"page {seq}: {scope} is no scope's number; give one from 0 to 2**32 - 1") from None
        self._rows.append(NO_ROW)
        self._column(scope).append(seq)

    def extend(self, scopes: NDArray[np.uint32]) -> None:
        """Enter the next pages, one for each number in ``scopes``, shape (n,)."""
        first = len(self._scopes)
        self._scopes.frombytes(scopes.astype(np.uint32).tobytes())
        self._rows.frombytes(np.full(len(scopes), NO_ROW, np.int64).tobytes())
        if len(scopes) and (scopes == scopes[0]).all():
            self._column(int(scopes[0])).extend(np.arange(first, len(self._scopes)))
            return
        for seq, scope in enumerate(scopes.tolist(), first):  # of many scopes, each has but a page or two here
            self._column(scope).append(seq)

    def _column(self, scope: int) -> _Seqs:
        seqs = self._by_scope.get(scope)
        if seqs is None:
            seqs = self._by_scope[scope] = _Seqs()
        return seqs

    def scope(self, seq: int) -> int:
        """Return the number of the scope that page ``seq`` belongs to.

        Raises:
            IndexError: there is no such page.
        """
        return self._scopes[_index(seq)]

    def row(self, seq: int) -> int:
        """Return the row of page ``seq`` in the vector pool, or -1 where it has no vector.

        Raises:
            IndexError: there is no such page.
        """
        return self._rows[_index(seq)]

    def set_row(self, seq: int, row: int) -> None:
        """Note where the vector of page ``seq`` is; -1: nowhere.

        Raises:
            IndexError: there is no such page.
        """
        seq = _index(seq)
        self._embedded += (row != NO_ROW) - (self._rows[seq] != NO_ROW)
        self._rows[seq] = row

    def embedded_of(self, seqs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of ``seqs``, shape (n,), have a vector.

        For the thread that changes the table alone: it can't grow in that moment.
        """
        found: NDArray[np.bool_] = np.frombuffer(self._rows, np.int64)[seqs] != NO_ROW
        return found

    def append_lost(self) -> None:
        """Enter a number whose page can't be read any more; it belongs to no one."""
        self.append(len(self), LOST)

    @property
    def kept(self) -> int:
        """How many pages there are, lost ones left out."""
        return len(self) - self.count_of(LOST)

    @property
    def embedded(self) -> int:
        """How many pages have a vector."""
        return self._embedded

    def slice(self, offset: int, limit: int) -> list[int]:
        """Return ``limit`` pages from the ``offset``-th on, lost ones left out."""
        lost = self.seqs_of(LOST)
        if not len(lost):
            return list(range(offset, min(offset + limit, len(self))))
        kept = np.delete(np.arange(len(self)), lost)
        return [int(seq) for seq in kept[offset : offset + limit]]

    def seqs_of(self, scope: int) -> NDArray[np.int64]:
        """Return the pages of a scope, ascending, shape (n,), int64: a read-only view of the present state, no copy."""
        seqs = self._by_scope.get(scope)
        return np.empty(0, np.int64) if seqs is None else seqs.view()

    def count_of(self, scope: int) -> int:
        """Return how many pages a scope has."""
        seqs = self._by_scope.get(scope)
        return 0 if seqs is None else len(seqs)


class _Seqs:
    """A growing column. Views stay valid and unchanged while it grows, which ``array.array`` would refuse to do."""

    __slots__ = ("_buffer", "_count")

    def __init__(self) -> None:
        self._buffer = np.empty(4, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, seq: int) -> None:
        if self._count == len(self._buffer):
            room = np.empty(self._count // 8 + 4, np.int64)
            self._buffer = np.concatenate((self._buffer, room))
        self._buffer[self._count] = seq
        self._count += 1  # last: a reader sees the column without the new entry, or with all of it

    def extend(self, seqs: NDArray[np.int64]) -> None:
        stop = self._count + len(seqs)
        if stop > len(self._buffer):
            room = np.empty(stop // 8 + 4 + stop - len(self._buffer), np.int64)
            self._buffer = np.concatenate((self._buffer, room))
        self._buffer[self._count : stop] = seqs
        self._count = stop

    def view(self) -> NDArray[np.int64]:
        view = self._buffer[: self._count]
        view.flags.writeable = False
        return view


def _index(seq: int) -> int:
    if seq < 0:
        raise IndexError(f"there is no page {seq}")
    return seq


class PageIds:
    """From page ids to page numbers and back.

    A page whose caller gave no id has an automatic one, ``{store_tag}-{seq:012x}``, which takes no memory: it is read
    back from its text. Ids that callers give are kept in a dict. They may look like automatic ids of this store (pages
    exported from a backup and added again), so these rules keep every id with one page for ever:

    - the page that was accepted first keeps the id: where a given id is the automatic one of a lower number, the given
      one is refused; where it is that of a number to come, that page's automatic id gets a ``+`` appended, and another
      for as long as that is taken too;
    - text that looks like an automatic id means a page only if the page was accepted and has that very id: not before
      it is there, and not where its caller gave it another.

    Pages are registered in the order of their numbers, also when they are read back from disk: what an id means depends
    on it. Changing takes a lock of the owner; ``id_of`` and ``resolve`` do not.

    Args:
        store_tag: 16 hexadecimal digits in lower case, different for every store.

    Raises:
        InputError: the tag is something else.
    """

    __slots__ = ("_automatic", "_count", "_given", "_seqs", "_tag")

    def __init__(self, store_tag: str) -> None:
        if not re.fullmatch("[0-9a-f]{16}", store_tag):
            raise InputError(f"{store_tag!r} is no store's tag; it has 16 hexadecimal digits in lower case")
        self._tag = store_tag
        self._automatic = re.compile(rf"{store_tag}-([0-9a-f]{{{SEQ_DIGITS}}})\+*").fullmatch
        self._seqs: dict[str, int] = {}
        self._given = bytearray()  # a bit for each page: did its caller give it an id?
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
        while self._seqs.get(page_id, seq) < seq:
            page_id += "+"
        return page_id

    def _holder(self, page_id: str, count: int) -> int | None:
        """Return the page below ``count`` that has the id."""
        seq = self._seqs.get(page_id)
        if seq is not None:
            return seq
        seq = self._parsed(page_id)
        if seq is None or seq >= count or self._has_given(seq) or self.id_of(seq, None) != page_id:
            return None
        return seq

    def _parsed(self, page_id: str) -> int | None:
        match = self._automatic(page_id)
        return int(match[1], 16) if match else None

    def _has_given(self, seq: int) -> bool:
        byte, bit = divmod(seq, 8)
        return byte < len(self._given) and bool(self._given[byte] >> bit & 1)
