"""From a user's history to what a store takes: the pages to accept, and the memory to take over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from mos_pipeline.legacy.history import History, HistoryPage
from mos_pipeline.legacy.model import EXTRA, LegacyFact
from mos_pipeline.legacy.room import Room
from mos_pipeline.memory.takeover import TakenFact, TakenPage, TakenSession, Takeover
from mos_pipeline.messages import embedded_text, encode

__all__ = ["metadata_of", "name_of", "takeover_of"]


def metadata_of(page: HistoryPage) -> dict[str, Any] | None:
    """Return the metadata that a page comes with."""
    return {EXTRA: page.page.extra} if page.page.extra else None


def name_of(history: History, told: Sequence[LegacyFact], room: Room) -> bytes:
    """Return what the memory is known by: a digest of all of it but the vectors, and of what there is no room for.

    So what is left out for want of room is taken where there is more of it another time.
    """
    user = history.user
    sessions = [
        [
            *(one.session_id, one.summary, one.keywords, one.timestamp),
            *(one.visits, one.interactions, one.last_visit, one.accesses),
            *([page.page_id, *page.content, page.analyzed, page.overview] for page in one.pages),
        ]
        for one in user.sessions
    ]
    bases = user.knowledge, user.assistant_knowledge, told
    facts = [[[fact.text, fact.timestamp] for fact in base] for base in bases]
    short = [page.content for page in user.short]
    left_out = [sorted(room.too_large), room.sessions, room.facts]
    everything: list[object] = [
        left_out,
        user.user_id,
        short,
        sessions,
        history.links.links,
        user.profile,
        user.updated,
        facts,
    ]
    return hashlib.sha256(encode(everything)).digest()[:16]


def takeover_of(history: History, told: Sequence[LegacyFact], page_ids: Mapping[str, str], name: bytes) -> Takeover:
    """Return the memory.

    Args:
        history: the user's.
        told: what the assistant said of itself.
        page_ids: the ids under which the pages were accepted, by their keys; those that could not be are missing.
        name: what it is known by.
    """
    user = history.user
    mid = [one for one in history.pages if one.in_mid_term]
    analysed = [one for one in mid if one.page.analyzed]

    def ids(keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(page_ids[key] for key in keys if key in page_ids)

    sessions = (
        TakenSession(
            one.session.summary,
            one.session.keywords,
            one.session.timestamp,
            ids(one.pages),
            ids(one.fresh),
            ids(one.tells_of),
            one.session.visits,
            one.session.interactions,
            one.session.last_visit,
            one.session.accesses,
            one.session.vector,
        )
        for one in history.sessions
    )
    facts = [TakenFact(True, fact.text, fact.timestamp, fact.vector) for fact in user.knowledge]
    of_assistant = (*user.assistant_knowledge, *told)
    facts += [TakenFact(False, fact.text, fact.timestamp, fact.vector) for fact in of_assistant]
    return Takeover(
        name,
        tuple(
            TakenPage(page_ids[one.key], embedded_text(*one.page.content[:2]), one.page.vector)
            for one in mid
            if one.key in page_ids
        ),
        tuple(
            (page_ids[earlier], page_ids[later])
            for earlier, later in history.links.links
            if earlier in page_ids and later in page_ids
        ),
        tuple((page_ids[key], text) for key, text in history.links.overviews if key in page_ids),
        tuple(sessions),
        user.profile,
        user.updated,
        tuple(facts),
        ids([one.key for one in analysed or mid or history.pages]),
    )
