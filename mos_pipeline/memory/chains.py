"""Which page continues which: chains of pages, each with a running overview."""

from __future__ import annotations

from array import array

from mos_pipeline.errors import InputError

__all__ = ["Chains"]

NONE = -1


class Chains:
    """The links between all pages of a store, in columns: 24 bytes a page, and the overviews' texts.

    A page continues at most one page, of a lower number, and is continued by at most one: so chains ascend and have
    no cycles. A chain's id is the number of its first page; a page without links is a chain by itself. Page numbers
    have no holes, so a page that is there vouches for all pages below it. Not for several threads that change it at
    once: its owner holds a lock.
    """

    __slots__ = ("_first", "_next", "_overviews", "_previous")

    def __init__(self) -> None:
        self._previous = array("q")
        self._next = array("q")
        self._first = array("q")
        self._overviews: dict[int, tuple[int, str]] = {}  # by chain: the page it was made at, and its text

    def link(self, earlier: int, later: int) -> None:
        """Note that page ``later`` continues page ``earlier``; the same link twice is one.

        Where both chains had an overview, that of the earlier stands until the next is set.

        Raises:
            InputError: the pages do not ascend from 0, or one of them has another neighbour there; nothing was changed.
        """
        if not 0 <= earlier < later:
            raise InputError(f"page {later} can't continue page {earlier}; link a page to one of a lower number")
        self._grow(later + 1)
        before, after = self._previous[later], self._next[earlier]
        if (before, after) == (earlier, later):
            return
        if (before, after) != (NONE, NONE):
            raise InputError(
                f"page {later} can't continue page {earlier}: it continues page {before} and that one is continued by "
                f"page {after} ({NONE}: none); a page has one neighbour on each side"
            )
        self._previous[later], self._next[earlier] = earlier, later
        self._rename(later, self._first[earlier])

    def chain_of(self, seq: int) -> int:
        """Return the id of the chain that page ``seq`` is in: the number of its first page."""
        return self._first[seq] if 0 <= seq < len(self._first) else seq

    def pages_of(self, chain: int) -> list[int]:
        """Return the pages of a chain, given by its id (or of its rest, given by one of its pages), in order."""
        pages = [chain]
        while pages[-1] < len(self._next) and (after := self._next[pages[-1]]) != NONE:
            pages.append(after)
        return pages

    def overview(self, seq: int) -> str:
        """Return the overview of the chain that page ``seq`` is in; empty where none was set."""
        return self._overviews.get(self.chain_of(seq), (NONE, ""))[1]

    def set_overview(self, seq: int, text: str) -> None:
        """Set the overview of the chain that page ``seq`` is in, for all its pages; one made at a later page stays."""
        chain = self.chain_of(seq)
        if self._overviews.get(chain, (NONE, ""))[0] <= seq:
            self._overviews[chain] = seq, text

    def _grow(self, count: int) -> None:
        missing = range(len(self._first), count)
        if missing:
            self._previous.extend(array("q", [NONE]) * len(missing))
            self._next.extend(array("q", [NONE]) * len(missing))
            self._first.extend(missing)

    def _rename(self, chain: int, first: int) -> None:
        overview = self._overviews.pop(chain, None)
        if overview is not None:
            self._overviews.setdefault(first, overview)
        for seq in self.pages_of(chain):
            self._first[seq] = first
