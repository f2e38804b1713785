"""All pages of a store, in columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mos_pipeline.errors import InputError
from mos_pipeline.memory.columns import Column

__all__ = ["FORGOTTEN", "LOST", "PageTable"]

NO_ROW = -1
LOST = (1 << 32) - 1  # the scope of pages that can't be read any more
FORGOTTEN = LOST - 1  # and of those that were forgotten on request


class PageTable:
    """What is known of every page, by its number: its scope and its vector; and each scope's pages.

    Numbers begin with 0 and have no holes. Some 21 bytes a page and 300 a scope. One thread may change the table
    while others read it: an answer is a state that was.
    """

    __slots__ = ("_by_scope", "_embedded", "_nobodys", "_rows", "_scopes")

    def __init__(self) -> None:
        self._embedded = 0
        # How many there are is all that is kept of pages that are nobody's: a store that forgets as much as it takes in
        # has ever more of them.
        self._nobodys = {LOST: 0, FORGOTTEN: 0}
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
        if scope in self._nobodys:
            self._nobodys[scope] += 1
        else:
            self._column(scope).append(seq)

    def extend(self, scopes: NDArray[np.uint32]) -> None:
        """Enter the next pages, one for each number in ``scopes``, shape (n,)."""
        first = len(self._scopes)
        self._scopes.frombytes(scopes.astype(np.uint32).tobytes())
        self._rows.frombytes(np.full(len(scopes), NO_ROW, np.int64).tobytes())
        for nobody in self._nobodys:
            self._nobodys[nobody] += int((scopes == nobody).sum())
        if len(scopes) and (scopes == scopes[0]).all() and scopes[0] not in self._nobodys:
            self._column(int(scopes[0])).extend(np.arange(first, len(self._scopes)))
            return
        for seq, scope in enumerate(scopes.tolist(), first):  # of many scopes, each has but a page or two here
            if scope not in self._nobodys:
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

    def is_kept(self, seq: int) -> bool:
        """Return whether page ``seq`` is somebody's: neither lost nor forgotten.

        Raises:
            IndexError: there is no such page.
        """
        return self._scopes[_index(seq)] < FORGOTTEN

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

    def set_rows(self, seqs: NDArray[np.int64], row: int) -> None:
        """Note for pages ``seqs``, shape (n,), each once, that their vectors are in ``row``, or nowhere (-1).

        For a row that stands for a place of another kind; for the thread that changes the table alone.
        """
        rows = np.frombuffer(self._rows, np.int64)
        self._embedded += (row != NO_ROW) * len(seqs) - int((rows[seqs] != NO_ROW).sum())
        rows[seqs] = row

    def rows_of(self, seqs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of pages ``seqs``, shape (n,), as ``row`` does; for the thread that changes the table."""
        found: NDArray[np.int64] = np.frombuffer(self._rows, np.int64)[seqs]
        return found

    def embedded_of(self, seqs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of ``seqs``, shape (n,), have a vector.

        For the thread that changes the table alone: it can't grow in that moment.
        """
        found: NDArray[np.bool_] = np.frombuffer(self._rows, np.int64)[seqs] != NO_ROW
        return found

    def count_bare(self, which: NDArray[np.bool_]) -> int:
        """Return how many of the pages that ``which``, shape (n,), marks are somebody's and have no vector."""
        rows, scopes = np.frombuffer(self._rows, np.int64), np.frombuffer(self._scopes, np.uint32)
        count = min(len(which), len(rows))
        return int((which[:count] & (rows[:count] == NO_ROW) & (scopes[:count] < FORGOTTEN)).sum())

    def append_lost(self) -> None:
        """Enter a number whose page can't be read any more; it belongs to no one."""
        self.append(len(self), LOST)

    def append_forgotten(self) -> None:
        """Enter a number whose page was forgotten, or that stands for no page at all; it belongs to no one."""
        self.append(len(self), FORGOTTEN)

    def forget(self, seqs: Iterable[int]) -> None:
        """Make pages nobody's, without a vector; those that are lost or forgotten already stay as they are.

        Views of their scopes' pages that were handed out before stay as they were.

        Raises:
            IndexError: there is no such page; nothing was changed.
        """
        wanted = np.array(sorted(set(seqs)), np.int64)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexError(f"there is no page {wanted[0] if wanted[0] < 0 else wanted[-1]}")
        scopes = np.frombuffer(self._scopes, np.uint32)
        wanted = wanted[scopes[wanted] < FORGOTTEN]
        owners = scopes[wanted]
        scopes[wanted] = FORGOTTEN
        for owner in set(owners.tolist()):
            self._by_scope[owner] = self._by_scope[owner].without(wanted[owners == owner])
        self._nobodys[FORGOTTEN] += len(wanted)
        rows = np.frombuffer(self._rows, np.int64)
        self._embedded -= int((rows[wanted] != NO_ROW).sum())
        rows[wanted] = NO_ROW

    @property
    def kept(self) -> int:
        """How many pages there are, lost and forgotten ones left out."""
        return len(self) - self.count_of(LOST) - self.count_of(FORGOTTEN)

    @property
    def embedded(self) -> int:
        """How many pages have a vector."""
        return self._embedded

    def slice(self, offset: int, limit: int) -> list[int]:
        """Return ``limit`` pages from the ``offset``-th on, lost and forgotten ones left out."""
        gone = np.concatenate((self.seqs_of(LOST), self.seqs_of(FORGOTTEN)))
        gone.sort(kind="stable")
        kept_before = gone - np.arange(len(gone))  # how many kept pages there are below each one that is gone
        ranks = np.arange(offset, max(offset, min(offset + limit, len(self) - len(gone))))
        seqs: list[int] = (ranks + np.searchsorted(kept_before, ranks, "right")).tolist()
        return seqs

    def seqs_of(self, scope: int) -> NDArray[np.int64]:
        """Return the pages of a scope, ascending, shape (n,), int64: a read-only view of the present state, no copy.

        Those of LOST and FORGOTTEN are looked for, for the thread that changes the table alone.
        """
        if scope in self._nobodys:
            return np.flatnonzero(np.frombuffer(self._scopes, np.uint32) == scope)
        seqs = self._by_scope.get(scope)
        return np.empty(0, np.int64) if seqs is None else seqs.view()

    def count_of(self, scope: int) -> int:
        """Return how many pages a scope has."""
        if scope in self._nobodys:
            return self._nobodys[scope]
        seqs = self._by_scope.get(scope)
        return 0 if seqs is None else len(seqs)


class _Seqs(Column):
    """Some pages' numbers, ascending."""

    __slots__ = ()

    def __init__(self, seqs: NDArray[np.int64] | tuple[()] = ()) -> None:
        super().__init__(np.int64, seqs)

    def without(self, seqs: NDArray[np.int64]) -> _Seqs:
        return _Seqs(np.setdiff1d(self.view(), seqs, assume_unique=True))


def _index(seq: int) -> int:
    if seq < 0:
        raise IndexError(f"there is no page {seq}")
    return seq
