"""Everything that memory holds of sessions, pages and facts, vectors included, for who shows it in another form."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.browsing import Browsing
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.reading import Gate
from mos_pipeline.memory.session import Session
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.words import terms
from mos_pipeline.messages import Page

__all__ = ["Details", "FactDetail", "PageDetail", "SessionDetail"]

Vector = npt.NDArray[np.float16]


class PageDetail(NamedTuple):
    """A page with its place in memory.

    Attributes:
        analysed: whether it was read for profile and knowledge.
        before: id of the page that it continues; None for none.
        after: id of the page that continues it; None for none.
        overview: that of its chain; empty where none was made yet.
        vector: float16, (d,); (0,) while it has none.
        keywords: those of its session that it says itself, sorted.
    """

    page: Page
    analysed: bool
    before: str | None
    after: str | None
    overview: str
    vector: Vector
    keywords: list[str]


class SessionDetail(NamedTuple):
    """A session with its pages, oldest first; for its numbers see ``memory.session.Session``.

    Attributes:
        recency: R_recency, 0 to 1.
        vector: its summary's, float16, (d,); (0,) where it has none.
    """

    session_id: int
    summary: str
    keywords: list[str]
    timestamp: str
    heat: float
    visits: int
    interactions: int
    recency: float
    last_visit: float
    accesses: int
    vector: Vector
    pages: list[PageDetail]


class FactDetail(NamedTuple):
    """A fact; ``vector`` is float16, (d,), or (0,) while it has none."""

    text: str
    timestamp: str
    vector: Vector


class _Place(NamedTuple):
    analysed: bool
    before: int
    after: int
    overview: str
    vector: Vector
    keywords: list[str]

    def shown(self, page: Page, ids: Mapping[int, str]) -> PageDetail:
        said = set(terms(f"{page.user_input} {page.agent_response}"))
        keywords = [keyword for keyword in self.keywords if said.issuperset(terms(keyword))]
        before, after = ids.get(self.before), ids.get(self.after)
        return PageDetail(page, self.analysed, before, after, self.overview, self.vector, keywords)


class Details:
    """Reads the state under the gate's lock, and texts from disk without it; from any thread."""

    def __init__(self, state: MemoryState, gate: Gate, browsing: Browsing, embedding: Embedding) -> None:
        self._state = state
        self._gate = gate
        self._browsing = browsing
        self._embedding = embedding

    def sessions(self, scope: Scope) -> list[SessionDetail]:
        """Return the sessions of a scope in the order of their founding."""
        with self._gate.lock:
            self._gate.settle_accounts()
            now = time.time()
            sessions = [(self._session(scope, one, now), one.seqs.tolist()) for one in scope.mid_term.sessions]
        return [session._replace(pages=self.pages(scope, seqs)) for session, seqs in sessions]

    def pages(self, scope: Scope, seqs: Sequence[int]) -> list[PageDetail]:
        """Return pages of a scope by their numbers; those forgotten meanwhile are left out."""
        with self._gate.lock:
            places = [self._place(scope, seq) for seq in seqs]
        ids = self._browsing.ids({seq for place in places for seq in (place.before, place.after) if seq >= 0})
        return [
            place.shown(page, ids)
            for place, page in zip(places, self._browsing.pages_left(seqs), strict=True)
            if page is not None
        ]

    def facts(self, scopes: Iterable[Scope], *, of_user: bool) -> list[FactDetail]:
        """Return the facts of scopes, each text once, the newest last."""
        with self._gate.lock:
            facts = [fact for scope in scopes for fact in scope.facts(of_user=of_user).facts]
            facts.sort(key=lambda fact: max(fact.seqs, default=-1))
            found = [FactDetail(fact.text, fact.timestamp, self._vector(fact.row)) for fact in facts]
        return list({fact.text: fact for fact in found}.values())

    def _session(self, scope: Scope, session: Session, now: float) -> SessionDetail:
        return SessionDetail(
            session.session_id,
            session.summary,
            sorted(session.keywords),
            session.timestamp,
            scope.mid_term.heat_of(session, now),
            session.visits,
            session.interactions,
            scope.mid_term.recency_of(session, now),
            session.last_visit,
            session.accesses,
            self._vector(session.row),
            [],
        )

    def _place(self, scope: Scope, seq: int) -> _Place:
        chains, held = self._state.chains, scope.mid_term.session_of(seq)
        session = None if held is None else scope.mid_term.get(held)
        analysed = session is not None and seq not in session.fresh
        vector = self._vector(self._state.pages.row(seq))
        keywords = sorted(session.keywords) if session is not None else []
        return _Place(analysed, chains.before(seq), chains.after(seq), chains.overview(seq), vector, keywords)

    def _vector(self, row: int) -> Vector:
        if row < 0 or not self._embedding.has_pool:
            return np.empty(0, np.float16)
        vector: Vector = self._embedding.pool.read([row])[0]
        return vector
