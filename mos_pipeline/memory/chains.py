"""Which page continues which: chains of pages, each with a running overview."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

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
        before, after = self.before(later), self.after(earlier)
        if (before, after) == (earlier, later):
            return
        if not self.can_link(earlier, later):
            raise InputError(
                f"page {later} can't continue page {earlier}: it continues page {before} and that one is continued by "
                f"page {after} ({NONE}: none); a page has one neighbour on each side"
            )
        self._grow(later + 1)
        self._previous[later], self._next[earlier] = earlier, later
        self._rename(later, self._first[earlier])

    def can_link(self, earlier: int, later: int) -> bool:
        """Return whether ``link`` takes these pages: they ascend, and neither has another neighbour there."""
        return 0 <= earlier < later and (self.before(later), self.after(earlier)) in ((NONE, NONE), (earlier, later))

    def before(self, seq: int) -> int:
        """Return the page that page ``seq`` continues, -1 for none."""
        return self._previous[seq] if 0 <= seq < len(self._previous) else NONE

    def after(self, seq: int) -> int:
        """Return the page that continues page ``seq``, -1 for none."""
        return self._next[seq] if 0 <= seq < len(self._next) else NONE

    def chain_of(self, seq: int) -> int:
        """Return the id of the chain that page ``seq`` is in: the number of its first page."""
        return self._first[seq] if 0 <= seq < len(self._first) else seq

    def pages_of(self, chain: int) -> list[int]:
        """Return the pages of a chain, given by its id (or of its rest, given by one of its pages), in order."""
        pages = [chain]
        while (after := self.after(pages[-1])) != NONE:
            pages.append(after)
        return pages

    def overview(self, seq: int) -> str:
        """Return the overview of the chain that page ``seq`` is in; empty where none was set."""
        return self._overviews.get(self.chain_of(seq), (NONE, ""))[1]

    def overview_until(self, seq: int) -> str:
        """Return the overview of the chain that page ``seq`` is in, unless it tells of later pages; else empty."""
        made_at, text = self._overviews.get(self.chain_of(seq), (NONE, ""))
        return text if made_at <= seq else ""

    def set_overview(self, seq: int, text: str) -> None:
        """Set the overview of the chain that page ``seq`` is in, for all its pages; one made at a later page stays."""
        chain = self.chain_of(seq)
        if self._overviews.get(chain, (NONE, ""))[0] <= seq:
            self._overviews[chain] = seq, text

    def cut(self, seqs: Iterable[int]) -> set[int]:
        """Take forgotten pages out of their chains, and return the other pages that were in these.

        What lies between two of them is a chain of its own now, and without an overview: the old one was made from all.
        """
        gone, others = set(seqs), set[int]()
        for first in {self.chain_of(seq) for seq in gone}:
            pages = self.pages_of(first)
            self._overviews.pop(first, None)
            self._part(pages, gone)
            others.update(pages)
        return others - gone

    def cut_all(self, seqs: Iterable[int]) -> None:
        """Cut every link that has an end in ``seqs``, pages that left mid-term memory and are kept otherwise.

        A chain's overview stays with the page it was made at, unless one of them is that page or lies before it: it may
        tell of them, and they are in other chains from now on, so it would outlast their being forgotten.
        """
        gone = set(seqs)
        for chain in sorted({self.chain_of(seq) for seq in gone}):
            made_at, text = self._overviews.pop(chain, (NONE, ""))
            pages = self.pages_of(chain)
            self._part(pages, gone)
            if text and not any(seq in gone for seq in pages if seq <= made_at):
                self._overviews[self.chain_of(made_at)] = made_at, text

    def relink(
        self, links: Mapping[int, int], overviews: Iterable[Sequence[Any]], yields: Container[int] = ()
    ) -> set[int]:
        """Put other links, by which pages continue others, in the place of theirs, and enter their ``overviews``.

        An overview that was made at a later page stays if all that it tells of is in one chain still. Otherwise it
        goes: it would outlast that page's being forgotten.

        Args:
            links: for each page the one it continues, or -1; a link that can't be is left out.
            overviews: ``[[page, text], …]``.
            yields: pages at which overviews were made that give way to these, though they were made later.

        Returns:
            Pages beyond these whose overview went, and that have none now.
        """
        told = self._take_links(links)
        for seq in sorted(links):
            if links[seq] != NONE and self.can_link(links[seq], seq):
                self.link(links[seq], seq)
        for seq, text in overviews:
            self.set_overview(seq, text)
        lost = set[int]()
        for made_at, text, pages in told:
            if not text or len({self.chain_of(seq) for seq in pages}) > 1:
                lost.update(pages)
            elif made_at not in yields or not self.overview(made_at):
                self.set_overview(made_at, text)
        return {seq for seq in lost if seq not in links and not self.overview(seq)}

    def _take_links(self, links: Mapping[int, int]) -> list[tuple[int, str, list[int]]]:
        """Take from pages the links by which they continue others, and from all chains involved the overviews.

        Returns:
            The overviews: the page each was made at, its text (empty where it was made at one of these pages, as that
            one is replaced), and the pages that it tells of.
        """
        told = list[tuple[int, str, list[int]]]()
        involved = sorted({self.chain_of(seq) for seq in (*links, *(seq for seq in links.values() if seq != NONE))})
        wholes = list(map(self.pages_of, involved))
        for chain, pages in zip(involved, wholes, strict=True):
            made_at, text = self._overviews.pop(chain, (NONE, ""))
            if text:
                told.append((made_at, "" if made_at in links else text, [seq for seq in pages if seq <= made_at]))
        for seq in links:
            before = self.before(seq)
            if before != NONE:
                self._next[before] = self._previous[seq] = NONE
        for pages in wholes:
            self._part(pages, ())
        return told

    def as_plain(self, seqs: Collection[int]) -> list[Any]:
        """Return links and overviews of whole chains, given by all their pages, as msgpack can store them."""
        linked = [[before, seq] for seq in seqs if (before := self.before(seq)) != NONE]
        firsts = sorted({self.chain_of(seq) for seq in seqs} & self._overviews.keys())
        return [linked, [list(self._overviews[first]) for first in firsts]]

    def restore(self, plain: Sequence[Any]) -> None:
        """Enter what ``as_plain`` told; a link that can't be any more is left out."""
        linked, overviews = plain
        for before, seq in linked:
            if self.can_link(before, seq):
                self.link(before, seq)
        for seq, text in overviews:
            self.set_overview(seq, text)

    def _part(self, pages: list[int], gone: Collection[int]) -> None:
        """Cut the links of a whole chain that have an end in ``gone``, and name its parts."""
        if len(pages) < 2:  # no link, and perhaps beyond the columns
            return
        for earlier, later in pairwise(pages):
            if earlier in gone or later in gone:
                self._next[earlier] = self._previous[later] = NONE
        for seq in pages:
            before = self._previous[seq]
            self._first[seq] = seq if before == NONE else self._first[before]

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
