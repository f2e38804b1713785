"""Long-term memory of one scope: the user's profile, facts about the user, and what the assistant said of itself."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from mos_pipeline import config
from mos_pipeline.memory.ascending import column, contains
from mos_pipeline.memory.facts import Fact, FactBase

__all__ = ["Fact", "FactBase", "LongTerm", "Profile", "Removed"]

SHORT = 30  # characters; a profile below that replaces none


class Profile:
    """One text about a user, and the pages it was made from.

    Attributes:
        text: empty where there is none yet.
        updated: when it was made, as text.
        seqs: the pages it was made from, ascending.
    """

    __slots__ = ("seqs", "text", "updated")

    def __init__(self) -> None:
        self.text = ""
        self.updated = ""
        self.seqs = column()

    def update(self, text: str, timestamp: str, seqs: Iterable[int] = ()) -> bool:
        """Replace the text by one that was made from it and pages ``seqs``; return False where the old one stays.

        An empty text or "None" is no profile, and one of less than 30 characters replaces none.
        """
        text = text.strip()
        if text.casefold() in ("", "none") or (self.text and len(text) < SHORT):
            return False
        self.text, self.updated = text, timestamp
        for seq in seqs:
            if not contains(self.seqs, seq):
                insort(self.seqs, seq)
        return True

    def clear(self) -> None:
        """Drop the text, and what it was made from."""
        self.text, self.updated, self.seqs = "", "", column()

    def as_plain(self) -> list[Any]:
        """Return it as msgpack can store it."""
        return [self.text, self.updated, self.seqs.tolist()]

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Profile:
        """Return the profile that ``as_plain`` was told of."""
        profile = cls()
        profile.text, profile.updated, seqs = plain
        profile.seqs.extend(seqs)
        return profile


class Removed(NamedTuple):
    """What went with a page.

    Attributes:
        knowledge: facts about the user, to free their rows.
        assistant_knowledge: facts about the assistant.
        remake: the other pages of a profile that was cleared, to make it again from; ascending.
    """

    knowledge: list[Fact]
    assistant_knowledge: list[Fact]
    remake: list[int]


class LongTerm:
    """Not for several threads at once: its owner holds a lock.

    Attributes:
        profile: the user's.
        knowledge: facts about the user.
        assistant_knowledge: facts about the assistant, learnt from this user's pages.
        since_promotion: pages that came since pages were last analysed.
        origins: pages that facts which were taken over may tell of, as nobody knows which does; ascending.
    """

    __slots__ = ("assistant_knowledge", "knowledge", "origins", "profile", "since_promotion")

    def __init__(self, settings: config.LongTerm) -> None:
        self.profile = Profile()
        self.knowledge = FactBase(settings.knowledge_capacity)
        self.assistant_knowledge = FactBase(settings.knowledge_capacity)
        self.since_promotion = 0
        self.origins = column()

    def pages_told_of(self) -> set[int]:
        """Return every page that a fact or the profile was made from, or may have been."""
        facts = chain(self.knowledge.facts, self.assistant_knowledge.facts)
        return {*self.profile.seqs, *self.origins, *chain.from_iterable(fact.seqs for fact in facts)}

    def remove_page(self, seq: int) -> Removed:
        """Take out all that a page has left: its facts, and the profile where it was made from that page too.

        All facts that were taken over go, where the page is one that they may tell of.
        """
        remake = set[int]()
        if contains(self.profile.seqs, seq):
            remake.update(self.profile.seqs)
            self.profile.clear()
        knowledge, assistant_knowledge = self.knowledge.remove_page(seq), self.assistant_knowledge.remove_page(seq)
        if contains(self.origins, seq):
            remake.update(self.origins)
            self.origins = column()
            knowledge += self.knowledge.drop_taken_over()
            assistant_knowledge += self.assistant_knowledge.drop_taken_over()
        return Removed(knowledge, assistant_knowledge, sorted(remake - {seq}))

    def as_plain(self) -> list[Any]:
        """Return all of it but the facts' rows as msgpack can store it."""
        bases = self.knowledge.as_plain(), self.assistant_knowledge.as_plain()
        plain = [self.profile.as_plain(), *bases, self.since_promotion]
        return [*plain, self.origins.tolist()] if self.origins else plain

    @classmethod
    def from_plain(cls, plain: Sequence[Any], settings: config.LongTerm) -> LongTerm:
        """Return what ``as_plain`` was told of, without rows."""
        profile, knowledge, assistant_knowledge, since_promotion, *origins = plain
        memory = cls(settings)
        memory.profile = Profile.from_plain(profile)
        memory.knowledge = FactBase.from_plain(knowledge, settings.knowledge_capacity)
        memory.assistant_knowledge = FactBase.from_plain(assistant_knowledge, settings.knowledge_capacity)
        memory.since_promotion = since_promotion
        memory.origins.extend(chain.from_iterable(origins))
        return memory
