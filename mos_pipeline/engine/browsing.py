"""Reading what is there: pages, sessions, profile and knowledge, as callers see them. In the caller's thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from mos_pipeline.engine.reading import Gate
from mos_pipeline.memory.long_term import Fact
from mos_pipeline.memory.sessions import Session as SessionState
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import Knowledge, KnowledgeHit, Page, Profile, Session, decode_record
from mos_pipeline.store.reading import PageReader

__all__ = ["Browsing"]


class Browsing:
    """Turns numbers into what callers see."""

    def __init__(self, state: MemoryState, gate: Gate, reader: PageReader) -> None:
        self._state = state
        self._gate = gate
        self._reader = reader

    def pages(self, seqs: Sequence[int]) -> list[Page]:
        """Return pages by sequence number; those that were forgotten since they were looked up are left out."""
        return [page for page in self.pages_left(seqs) if page is not None]

    def pages_left(self, seqs: Sequence[int]) -> list[Page | None]:
        """Return pages by sequence number, in their order; None for one that was forgotten since it was looked up."""
        records = self._reader.read_left(seqs)
        kept = map(self._state.pages.is_kept, seqs)
        return [
            self._page(seq, record) if is_kept and record is not None else None
            for seq, is_kept, record in zip(seqs, kept, records, strict=True)
        ]

    def _page(self, seq: int, record: bytes) -> Page:
        fields = decode_record(record)
        return Page(
            self._state.ids.id_of(seq, fields.page_id),
            fields.user_id,
            fields.assistant_id,
            fields.user_input,
            fields.agent_response,
            fields.timestamp,
            fields.metadata or {},
        )

    def sessions(self, scope: Scope, offset: int, limit: int) -> list[Session]:
        """Return sessions, hottest first."""
        with self._gate.lock:
            self._gate.settle_accounts()
            now = time.time()
            ranked = [(scope.mid_term.heat_of(one, now), one) for one in scope.mid_term.sessions]
            ranked.sort(key=lambda entry: (-entry[0], entry[1].session_id))
            part = [(heat, one, one.seqs.tolist()) for heat, one in ranked[offset : offset + limit]]
            return [self._session(heat, one, self._ids(seqs)) for heat, one, seqs in part]

    def _session(self, heat: float, session: SessionState, page_ids: tuple[str, ...]) -> Session:
        return Session(
            session.session_id,
            session.summary,
            tuple(sorted(session.keywords)),
            session.timestamp,
            heat,
            session.visits,
            page_ids,
        )

    def profile(self, scope: Scope) -> Profile:
        """Return the user's profile."""
        with self._gate.lock:
            profile = scope.long_term.profile
            return Profile(profile.text, profile.updated)

    def knowledge(self, scope: Scope, offset: int, limit: int, *, of_user: bool) -> list[Knowledge]:
        """Return facts, the oldest first."""
        with self._gate.lock:
            facts = scope.facts(of_user=of_user).facts[offset : offset + limit]
            return [self._fact(fact) for fact in facts]

    def knowledge_hits(
        self, scope: Scope, found: Iterable[tuple[float, int]], *, of_user: bool, limit: int
    ) -> list[KnowledgeHit]:
        """Return up to ``limit`` facts that were found, as (cosine, tag of the row), nearest first, each text once.

        Pages are named where they are those of ``scope``: a shared fact tells nobody of another user's pages.
        """
        hits: dict[str, KnowledgeHit] = {}
        with self._gate.lock:
            for score, tag in found:
                holder, fact_id = self._state.fact_of(tag)
                fact = holder.facts(of_user=of_user).get(fact_id)
                if fact is not None:  # else it has gone since the search
                    known = self._fact(fact) if holder is scope else Knowledge(fact.text, fact.timestamp, ())
                    hits.setdefault(fact.text, KnowledgeHit(score, known))
                if len(hits) == limit:
                    break
        return list(hits.values())

    def _fact(self, fact: Fact) -> Knowledge:
        return Knowledge(fact.text, fact.timestamp, self._ids(fact.seqs))

    def _ids(self, seqs: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of pages; a record is read only where the caller gave the page its id."""
        kept = [seq for seq in seqs if self._state.pages.is_kept(seq)]
        return tuple(self._state.ids.id_of(seq, self._given(seq)) for seq in kept)

    def _given(self, seq: int) -> str | None:
        return decode_record(self._reader.read(seq)).page_id if self._state.ids.has_given(seq) else None
