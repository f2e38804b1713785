"""What of a user's memory a store with these settings has no room for: known before anything is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mos_pipeline.config import Config
from mos_pipeline.legacy.history import History
from mos_pipeline.legacy.model import EXTRA, LegacyFact, LegacyPage, Problem
from mos_pipeline.memory.facts import FactBase
from mos_pipeline.messages import encode

__all__ = ["Room", "room_for"]


class Room(NamedTuple):
    """What there is no room for.

    Attributes:
        too_large: keys of pages that take more than ``store.max_page_bytes``.
        sessions: how many are beyond ``mid_term.capacity``.
        facts: how many are beyond ``long_term.knowledge_capacity``.
    """

    too_large: frozenset[str]
    sessions: int
    facts: int

    def problems(self, history: History) -> list[Problem]:
        """Return what is left out for want of room."""
        limit = "takes more than store.max_page_bytes; raise that, and migrate again"
        found = [Problem(*one.page.place, limit) for one in history.pages if one.key in self.too_large]
        for count, what, setting in (
            (self.sessions, "sessions, whose pages are kept", "mid_term.capacity"),
            (self.facts, "facts", "long_term.knowledge_capacity"),
        ):
            if count:
                reason = f"there is no room for {count} {what}; raise {setting}, and migrate again"
                found.append(Problem(f"users/{history.user.user_id}", "", reason))
        return found


def room_for(history: History, told: Sequence[LegacyFact], assistant: str, config: Config) -> Room:
    """Return what a store with these settings has no room for."""
    user, limit = history.user, config.store.max_page_bytes
    # As a page's record is packed; an id may be another one of about that length.
    records = (
        (one.key, [user.user_id, assistant, *one.page.content, _metadata(one.page), one.key, None])
        for one in history.pages
    )
    too_large = frozenset(key for key, record in records if len(encode(record)) > limit)
    facts = sum(
        max(0, _distinct(base) - config.long_term.knowledge_capacity)
        for base in (user.knowledge, [*user.assistant_knowledge, *told])
    )
    return Room(too_large, max(0, len(history.sessions) - config.mid_term.capacity), facts)


def _metadata(page: LegacyPage) -> dict[str, object] | None:
    return {EXTRA: page.extra} if page.extra else None


def _distinct(facts: Sequence[LegacyFact]) -> int:
    base = FactBase(len(facts))
    for fact in facts:
        base.take_over(fact.text, fact.timestamp)
    return len(base)
