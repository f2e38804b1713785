"""Reading what is there: pages, sessions, profile and knowledge, as callers see them. In the caller's thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mos_pipeline.engine.reading import Gate
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
            part = [(_shown(one, heat), one.seqs.tolist()) for heat, one in ranked[offset : offset + limit]]
        return [replace(session, page_ids=self._ids(seqs)) for session, seqs in part]

    def profile(self, scope: Scope) -> Profile:
        """Return the user's profile."""
        with self._gate.lock:
            profile = scope.long_term.profile
            return Profile(profile.text, profile.updated)

    def knowledge(self, scope: Scope, offset: int, limit: int, *, of_user: bool) -> list[Knowledge]:
        """Return facts, the oldest first."""
        with self._gate.lock:
            facts = scope.facts(of_user=of_user).facts[offset : offset + limit]
            part = [(fact.text, fact.timestamp, fact.seqs.tolist()) for fact in facts]
        return [Knowledge(text, timestamp, self._ids(seqs)) for text, timestamp, seqs in part]

    def knowledge_hits(
        self, scope: Scope, found: Iterable[tuple[float, int]], *, of_user: bool, limit: int
    ) -> list[KnowledgeHit]:
        """Return up to ``limit`` facts that were found, as (cosine, tag of the row), nearest first, each text once.

        Pages are named where they are those of ``scope``: a shared fact tells nobody of another user's pages.
        """
        hits: dict[str, tuple[float, str, list[int]]] = {}
        with self._gate.lock:
            for score, tag in found:
                holder, fact_id = self._state.fact_of(tag)
                fact = holder.facts(of_user=of_user).get(fact_id)
                if fact is not None:  # else it has gone since the search
                    mine = fact.seqs.tolist() if holder is scope else []
                    hits.setdefault(fact.text, (score, fact.timestamp, mine))
                if len(hits) == limit:
                    break
        return [
            KnowledgeHit(score, Knowledge(text, timestamp, self._ids(mine)))
            for text, (score, timestamp, mine) in hits.items()
        ]

    def ids(self, seqs: Iterable[int]) -> dict[int, str]:
        """Return the ids of pages, by their numbers, in their order.

        Without the gate's lock, as a record is read where the caller gave the page its id. Pages that were forgotten
        since they were looked up are left out.
        """
        ids, pages = self._state.ids, self._state.pages
        kept = list(filter(pages.is_kept, seqs))
        given = list(filter(ids.has_given, kept))
        records = dict(zip(given, self._reader.read_left(given), strict=True))
        named = {seq: decode_record(record).page_id for seq, record in records.items() if record is not None}
        return {seq: ids.id_of(seq, named.get(seq)) for seq in kept if pages.is_kept(seq)}

    def _ids(self, seqs: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.ids(seqs).values())


def _shown(session: SessionState, heat: float) -> Session:
    """Return a session as callers see it, but for its pages."""
    return Session(
        session.session_id,
        session.summary,
        tuple(sorted(session.keywords)),
        session.timestamp,
        heat,
        session.visits,
        (),
    )
