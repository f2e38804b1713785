"""All that is remembered, as one structure with one owner: users, their pages, words, chains, sessions and knowledge.

Pure: it knows pages by sequence number and vectors by row. The main process's coordinator changes it; what a batch or a
promotion brought is entered by the same function when it is new and when it is read back from disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from mos_pipeline.config import Config
from mos_pipeline.memory.chains import Chains
from mos_pipeline.memory.long_term import FactBase, LongTerm
from mos_pipeline.memory.outcomes import BatchOutcome, BatchRepaid, Forgotten, PromotionOutcome, PromotionRepaid, Told
from mos_pipeline.memory.owed import OF_BATCH, OF_PROMOTION, Owed
from mos_pipeline.memory.page_ids import PageIds
from mos_pipeline.memory.pages import PageTable
from mos_pipeline.memory.rehousing import rehouse
from mos_pipeline.memory.ring import ShortTermRing
from mos_pipeline.memory.sessions import MidTerm, Session
from mos_pipeline.memory.word_index import WordIndex

__all__ = ["MemoryState", "Scope"]

OWNERS = 4  # keys of a scope's rows in the vector pool: pages, sessions, facts of the user, facts of the assistant
FACT_BITS = 32


@dataclass(slots=True, eq=False)
class Scope:
    """One (user, assistant): whose pages these are, and what is known of them.

    Attributes:
        assistant_rows: owner key of the rows of the assistant's facts in the vector pool; one for all scopes of the
            assistant where they are shared.
        latest: the last page that was accepted for it since opening, which may not be in the columns yet; -1 for none.
        latest_online: the last of them that came by itself, and from no input that brings many; -1 for none.
        indexed: how many of its pages are in the word index.
        given: how many of its pages have been given out in batches.
        gaps: pages before ``given`` that make batches of their own: theirs was lost with a damaged frame, or tells of a
            page that was forgotten.
        remake: pages that the profile is to be made from anew, ascending.
        owed: what a model owes, as it could not be asked.
        aside: pages that no worker could work on, with the reason.
        taken_over: what memory of it was taken over from elsewhere, by the names that it had there.
        held: whether its pages are not worked on for now, as their memory is being taken over.
        lifting: whether they are not, as its summaries and facts lack vectors, and nothing could be compared with them.
    """

    number: int
    user_id: str
    assistant_id: str
    ring: ShortTermRing
    mid_term: MidTerm
    long_term: LongTerm
    assistant_rows: int
    words: WordIndex = field(default_factory=WordIndex)
    latest: int = -1
    latest_online: int = -1
    indexed: int = 0
    given: int = 0
    gaps: list[int] = field(default_factory=list)
    remake: list[int] = field(default_factory=list)
    owed: Owed = field(default_factory=Owed)
    aside: dict[int, str] = field(default_factory=dict)
    taken_over: list[bytes] = field(default_factory=list)
    held: bool = False
    lifting: bool = False

    @property
    def page_rows(self) -> int:
        """Owner key of its pages' rows in the vector pool; their tags are page numbers."""
        return OWNERS * self.number

    @property
    def session_rows(self) -> int:
        """Owner key of its session summaries' rows in the vector pool; their tags are session ids."""
        return OWNERS * self.number + 1

    def fact_rows(self, *, of_user: bool) -> int:
        """Return the owner key of the rows of its facts in the vector pool; for their tags see ``fact_tag``."""
        return OWNERS * self.number + 2 if of_user else self.assistant_rows

    def facts(self, *, of_user: bool) -> FactBase:
        """Return what is known of the user, or what the assistant said of itself to this user."""
        return self.long_term.knowledge if of_user else self.long_term.assistant_knowledge

    def fact_tag(self, fact_id: int) -> int:
        """Return the tag of a fact's row: it names the scope too, as an assistant's rows may be those of many."""
        return self.number << FACT_BITS | fact_id


class MemoryState:
    """Scopes, the columns over all pages, ids and chains."""

    def __init__(self, store_tag: str, config: Config, held: Collection[tuple[str, str]] = ()) -> None:
        """Keep what belongs to the store ``store_tag``; ``held`` are (user, assistant) whose scopes begin as such."""
        self._config = config
        self._held = frozenset(held)
        self.pages = PageTable()
        self.ids = PageIds(store_tag)
        self.chains = Chains()
        self.scopes: list[Scope] = []
        self._by_name: dict[tuple[str, str], Scope] = {}
        self._shared: dict[str, int] = {}
        self._making = Lock()  # a page is accepted for a new user while events of one without pages are told again

    def find(self, user_id: str, assistant_id: str) -> Scope | None:
        """Return the scope, or None where it has no page."""
        return self._by_name.get((user_id, assistant_id))

    def scope(self, user_id: str, assistant_id: str) -> Scope:
        """Return the scope, made if need be; from any thread."""
        scope = self._by_name.get((user_id, assistant_id))
        if scope is not None:
            return scope
        with self._making:
            scope = self._by_name.get((user_id, assistant_id))
            if scope is None:
                scope = self._new_scope(user_id, assistant_id)
                self.scopes.append(scope)
                self._by_name[user_id, assistant_id] = scope
            return scope

    def _new_scope(self, user_id: str, assistant_id: str) -> Scope:
        config, number = self._config, len(self.scopes)
        rows = OWNERS * number + 3
        if config.long_term.share_assistant_knowledge:
            rows = self._shared.setdefault(assistant_id, -1 - len(self._shared))
        ring = ShortTermRing(config.short_term.capacity)
        memory = MidTerm(config.mid_term), self._new_long_term()
        return Scope(number, user_id, assistant_id, ring, *memory, rows, held=(user_id, assistant_id) in self._held)

    def _new_long_term(self) -> LongTerm:
        long_term = LongTerm(self._config.long_term)
        long_term.since_promotion = self._config.long_term.promotion_pages  # the first one need not wait
        return long_term

    def fact_of(self, tag: int) -> tuple[Scope, int]:
        """Return the scope and the fact that the tag of a row names."""
        return self.scopes[tag >> FACT_BITS], tag & ((1 << FACT_BITS) - 1)

    # Mid-term memory

    def apply(self, scope: Scope, outcome: BatchOutcome) -> list[int]:
        """Enter a batch's outcome: links, overviews, sessions; return the vector rows of sessions that had to go."""
        for seq, before in zip(outcome.seqs, outcome.links, strict=True):
            # A page that is worked on again, since another was forgotten, may have its neighbours already.
            if before >= 0 and self.chains.can_link(before, seq):
                self.chains.link(before, seq)
        for seq, text in outcome.overviews:
            self.chains.set_overview(seq, text)
        for placed in outcome.placed:
            scope.mid_term.apply(placed, outcome.time)
        scope.long_term.since_promotion += len(outcome.seqs)
        if "continuity" in outcome.owed:
            scope.owed.note(["continuity"], outcome.seqs)
        if "topics" in outcome.owed:
            scope.owed.note(["topics"], [seq for placed in outcome.placed for seq in placed.seqs])
            scope.owed.stand_ins.update(placed.session_id for placed in outcome.placed if placed.founded)
        return self._evicted(scope, outcome.evicted)

    def repay_batch(self, scope: Scope, repaid: BatchRepaid) -> list[int]:
        """Put a model's answer in the place of what stood in for it; return the vector rows of no use any more.

        Pages elsewhere in its chains that lose their overview by it are owed one.
        """
        scope.owed.settle(["continuity"], repaid.continuity)
        scope.owed.settle(["topics"], repaid.topics)
        if repaid.continuity:
            links = dict(zip(repaid.continuity, repaid.links, strict=True))
            stand_ins = scope.owed.pages("continuity")
            scope.owed.note(["continuity"], self.chains.relink(links, repaid.overviews, stand_ins))
        homes = {scope.mid_term.session_of(seq) for placed in repaid.placed for seq in placed.seqs}
        rows = [rehouse(scope.mid_term, placed, repaid.time) for placed in repaid.placed]
        for session_id in sorted(home for home in homes if home is not None):
            session = scope.mid_term.get(session_id)
            if session is not None and not session.seqs:
                scope.mid_term.drop(session_id)
                scope.owed.stand_ins.discard(session_id)
                rows.append(session.row)
        scope.owed.stand_ins.difference_update(placed.session_id for placed in repaid.placed if placed.founded)
        rows += self._evicted(scope, repaid.evicted)
        return [row for row in rows if row >= 0]

    def evict(self, scope: Scope) -> tuple[list[int], list[int]]:
        """Drop the sessions that are over the capacity; return their ids, and their vector rows."""
        sessions = scope.mid_term.evict()
        return [session.session_id for session in sessions], self._cut_off(scope, sessions)

    def _evicted(self, scope: Scope, session_ids: Iterable[int]) -> list[int]:
        return self._cut_off(scope, map(scope.mid_term.drop, session_ids))

    def _cut_off(self, scope: Scope, sessions: Iterable[Session | None]) -> list[int]:
        """Cut the links into sessions that were dropped, and return their rows; nobody owes what they would get."""
        gone = [session for session in sessions if session is not None]
        for session in gone:
            self.chains.cut_all(session.seqs)
            scope.owed.settle(OF_BATCH, session.seqs)
            scope.owed.stand_ins.discard(session.session_id)
        return [session.row for session in gone if session.row >= 0]

    def adopt(self, scope: Scope, mid_term: list[Any], chains: list[Any], long_term: list[Any]) -> None:
        """Put what ``as_plain`` told of a scope's memory in place of what it has; nothing has a vector row then."""
        self.chains.cut_all(self.pages.seqs_of(scope.number).tolist())
        self.chains.restore(chains)
        scope.mid_term = MidTerm.from_plain(mid_term, self._config.mid_term)
        scope.long_term = LongTerm.from_plain(long_term, self._config.long_term)

    # Long-term memory

    def hot_pages(self, scope: Scope, now: float, *, at_once: bool = False) -> list[int]:
        """Return the pages that are to be made long-term memory, in the order in which they should be.

        There are none where it is not time for it. They are those of the sessions whose heat has reached the threshold,
        hottest first, that were not analysed yet. With ``at_once`` it is time, and any session is hot enough.
        """
        if scope.remake:
            return scope.remake
        if at_once:
            return [seq for session, _ in scope.mid_term.hot(now, 0.0) for seq in session.fresh]
        is_time = scope.long_term.since_promotion >= self._config.long_term.promotion_pages
        hottest = scope.mid_term.hottest(now) if is_time else None
        if hottest is None or hottest[1] < self._config.mid_term.heat_threshold:
            return []
        hot = scope.mid_term.hot(now, self._config.mid_term.heat_threshold)
        return [seq for session, _ in hot for seq in session.fresh]

    def promote(self, scope: Scope, outcome: PromotionOutcome) -> list[int]:
        """Enter a promotion's outcome; return the vector rows that are of no use any more."""
        analysed = set(outcome.seqs)
        scope.mid_term.analysed(outcome.seqs, outcome.time)
        scope.remake = [seq for seq in scope.remake if seq not in analysed]
        if outcome.seqs:  # else pages that are facts were entered, and none was analysed
            scope.long_term.since_promotion = 0
        scope.owed.settle(["profile"], outcome.seqs)
        scope.owed.note(outcome.owed, outcome.seqs)
        return self._enter_long_term(scope, outcome)

    def repay_promotion(self, scope: Scope, repaid: PromotionRepaid) -> list[int]:
        """Put a model's answer in the place of what stood in for it; return the vector rows of no use any more."""
        scope.owed.settle(repaid.tasks, repaid.seqs)
        gone = [fact for of_user in (True, False) for fact in scope.facts(of_user=of_user).retract(repaid.retracted)]
        return [fact.row for fact in gone if fact.row >= 0] + self._enter_long_term(scope, repaid)

    def _enter_long_term(self, scope: Scope, outcome: PromotionOutcome | PromotionRepaid) -> list[int]:
        scope.long_term.profile.update(outcome.profile, outcome.timestamp, outcome.seqs)
        freed = [told.row for told in outcome.told if not _tell(scope.facts(of_user=told.of_user), told)]
        freed += [fact.row for of_user in (True, False) for fact in scope.facts(of_user=of_user).evict()]
        return [row for row in freed if row >= 0]

    # Forgetting

    def forget(self, scope: Scope, seqs: Collection[int]) -> Forgotten:
        """Take pages out of mid- and long-term memory, with all that was derived from them.

        A session that holds one of them is dropped, as its summary may tell of it, and so is one that may tell of it
        for other reasons; the chain's overview goes; a profile made from one of them is cleared, and its other pages
        enter ``remake``.
        """
        redo, rows, remake = set[int](), list[int](), set(scope.remake)
        redo.update(self.chains.cut(seqs))
        scope.owed.settle((*OF_BATCH, *OF_PROMOTION), seqs)
        for session_id in scope.mid_term.telling_of(seqs):
            session = scope.mid_term.drop(session_id)
            if session is not None:
                redo.update(session.seqs)
                rows.append(session.row)
                scope.owed.settle(["topics"], session.seqs)  # they are told anew
                scope.owed.stand_ins.discard(session_id)
        scope.owed.settle(["continuity"], redo)
        for seq in scope.long_term.pages_told_of().intersection(seqs):
            removed = scope.long_term.remove_page(seq)
            rows += [fact.row for fact in (*removed.knowledge, *removed.assistant_knowledge)]
            remake.update(removed.remake)
        scope.remake = sorted(remake.difference(seqs))
        scope.owed.settle(["profile"], scope.remake)
        return Forgotten([row for row in rows if row >= 0], redo.difference(seqs))


def _tell(base: FactBase, told: Told) -> bool:
    """Enter a fact that was told; return whether its row is in use now."""
    known = base.find(told.same_as) if told.same_as else None
    if known is not None:
        base.merge(known.fact_id, told.seqs, told.timestamp)
        return False
    fact, new = base.add(told.text, told.timestamp, told.seqs)
    if new:
        fact.row = told.row
    return new
