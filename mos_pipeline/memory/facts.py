"""Facts, each a statement with the pages it was made on, as many as there is room for."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mos_pipeline.errors import InputError
from mos_pipeline.memory.ascending import column, contains, remove

__all__ = ["Fact", "FactBase"]

_words = re.compile(r"\w+").findall


@dataclass(slots=True, eq=False)
class Fact:
    """A statement.

    Attributes:
        fact_id: unique within its base, ascending, never used again.
        text: as it was stated first.
        seqs: the pages it was stated on, or something so near that it counts as the same, ascending.
        timestamps: those of the pages, in the order of ``seqs``.
        worded: those of the pages that stated it in these words, ascending.
        taken_over: when it was stated, where it was taken over from elsewhere and no page is known for it; else None.
        row: row of its embedding in the vector pool, -1 for none; not part of a snapshot's meaning.
    """

    fact_id: int
    text: str
    seqs: array[int] = field(default_factory=column)
    timestamps: list[str] = field(default_factory=list)
    worded: array[int] = field(default_factory=column)
    taken_over: str | None = None
    row: int = -1

    @property
    def timestamp(self) -> str:
        """When it was stated last; empty where no page is left."""
        return self.timestamps[-1] if self.timestamps else self.taken_over or ""

    def as_plain(self) -> list[Any]:
        """Return everything but the row as msgpack can store it."""
        plain = [self.fact_id, self.text, self.seqs.tolist(), self.timestamps, self.worded.tolist()]
        return plain if self.taken_over is None else [*plain, self.taken_over]

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Fact:
        """Return the fact that ``as_plain`` was told of, without a row."""
        fact_id, text, seqs, timestamps, worded, *taken_over = plain
        return cls(fact_id, text, array("q", seqs), list(timestamps), array("q", worded), *taken_over)

    def state(self, seq: int, timestamp: str, *, worded: bool) -> None:
        """Note a page that states it; ``worded``: in these words."""
        _insert(self.seqs, seq, self.timestamps, timestamp)
        if worded:
            _insert(self.worded, seq)

    def retract(self, seq: int) -> bool:
        """Take a page away; return whether no page is left that states it in these words."""
        at = bisect_left(self.seqs, seq)
        if remove(self.seqs, seq):
            del self.timestamps[at]
            remove(self.worded, seq)
        return not self.worded


class FactBase:
    """Facts of one kind about one person. Not for several threads at once: its owner holds a lock.

    A fact is as new as the last page it was stated on, whatever the timestamps say, which are the callers'.

    Args:
        capacity: facts that ``evict`` leaves.
    """

    __slots__ = ("_by_key", "_capacity", "_facts", "_next_id")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._facts: dict[int, Fact] = {}
        self._by_key: dict[str, Fact] = {}
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def facts(self) -> list[Fact]:
        """The facts, the newest last."""
        return sorted(self._facts.values(), key=_age)

    def get(self, fact_id: int) -> Fact | None:
        """Return a fact, or None where it is not there."""
        return self._facts.get(fact_id)

    def find(self, text: str) -> Fact | None:
        """Return the fact with this text, or None where there is none; case, marks and white space don't count."""
        return self._by_key.get(_key(text))

    def add(self, text: str, timestamp: str, seqs: Iterable[int]) -> tuple[Fact, bool]:
        """Enter a statement; return its fact, and whether that is new. The capacity is ``evict``'s business.

        Args:
            text: the statement.
            timestamp: when it was made.
            seqs: the pages it was made on, at least one.

        Raises:
            InputError: no page is named; nothing was changed.
        """
        pages = list(seqs)
        if not pages:
            raise InputError("a fact without a page can't be kept; name the pages it was stated on")
        fact = self.find(text)
        new = fact is None
        if fact is None:
            fact = self._enter(Fact(self._next_id, text))
        for seq in pages:
            fact.state(seq, timestamp, worded=True)
        return fact, new

    def take_over(self, text: str, timestamp: str) -> tuple[Fact, bool]:
        """Enter a statement of which no page is known; return its fact, and whether that is new.

        ``timestamp`` is when it was made. Of a known fact that was not taken over nothing changes.
        """
        fact = self.find(text)
        if fact is not None:
            fact.taken_over = None if fact.taken_over is None else timestamp
            return fact, False
        return self._enter(Fact(self._next_id, text, taken_over=timestamp)), True

    def drop_taken_over(self) -> list[Fact]:
        """Drop the facts that were taken over, and return them; those that a page states in these words stay."""
        gone = [fact for fact in self.facts if fact.taken_over is not None and not fact.worded]
        for fact in gone:
            self._drop(fact)
        for fact in self._facts.values():
            fact.taken_over = None
        return gone

    def merge(self, fact_id: int, seqs: Iterable[int], timestamp: str) -> Fact:
        """Note that pages state a fact in other words; return it.

        Raises:
            InputError: there is no such fact.
        """
        fact = self._facts.get(fact_id)
        if fact is None:
            raise InputError(f"there is no fact {fact_id} to merge with; it may have been forgotten")
        for seq in seqs:
            fact.state(seq, timestamp, worded=contains(fact.worded, seq))
        return fact

    def evict(self) -> list[Fact]:
        """Drop the oldest facts until there are at most ``capacity``; return them."""
        gone = self.facts[: max(0, len(self) - self._capacity)]
        for fact in gone:
            self._drop(fact)
        return gone

    def remove_page(self, seq: int) -> list[Fact]:
        """Take a page from all facts; return those that went because no page is left that states them in their words.

        So nothing is left of a forgotten page's words. What other pages said in other words goes with it.
        """
        gone = [fact for fact in self.facts if contains(fact.seqs, seq) and fact.retract(seq)]
        for fact in gone:
            self._drop(fact)
        return gone

    def only_of(self, seqs: Collection[int]) -> list[Fact]:
        """Return the facts that no page but these states in their words, and that were not taken over."""
        gone = set(seqs)
        return [fact for fact in self.facts if fact.worded and gone.issuperset(fact.worded) and fact.taken_over is None]

    def retract(self, seqs: Collection[int]) -> list[Fact]:
        """Take from pages what they state; return the facts that went with it: those of ``only_of``."""
        gone = self.only_of(seqs)
        for fact in gone:
            self._drop(fact)
        for fact in self._facts.values():
            for seq in seqs:
                fact.retract(seq)
        return gone

    def as_plain(self) -> list[Any]:
        """Return all of it but the rows as msgpack can store it."""
        return [self._next_id, [fact.as_plain() for fact in self._facts.values()]]

    @classmethod
    def from_plain(cls, plain: Sequence[Any], capacity: int) -> FactBase:
        """Return the facts that ``as_plain`` was told of, without rows; ``evict`` may be due."""
        base = cls(capacity)
        next_id, facts = plain
        for fact in map(Fact.from_plain, facts):
            base._enter(fact)
        base._next_id = next_id
        return base

    def _enter(self, fact: Fact) -> Fact:
        self._facts[fact.fact_id] = self._by_key[_key(fact.text)] = fact
        self._next_id = fact.fact_id + 1
        return fact

    def _drop(self, fact: Fact) -> None:
        del self._facts[fact.fact_id], self._by_key[_key(fact.text)]


def _age(fact: Fact) -> tuple[int, int]:
    return (fact.seqs[-1] if fact.seqs else -1), fact.fact_id


def _key(text: str) -> str:
    return " ".join(_words(text.casefold())) or text


def _insert(ascending: array[int], seq: int, beside: list[str] | None = None, value: str = "") -> None:
    """Insert a page, and ``value`` at the same place of ``beside``, unless it is there."""
    at = bisect_left(ascending, seq)
    if at == len(ascending) or ascending[at] != seq:
        ascending.insert(at, seq)
        if beside is not None:
            beside.insert(at, value)
