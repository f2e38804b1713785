"""Memory that is taken over, as it enters the state: chains, sessions, profile, facts, and the vectors of its pages.

Owned by the coordinator, which holds the scope meanwhile.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from mos_pipeline.engine.checkpoints import applied
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.memory.session import Session
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.takeover import TakenFact, TakenPage, TakenSession, Takeover, Vector
from mos_pipeline.store.derived import VectorFrame
from mos_pipeline.store.reading import PageReader

__all__ = ["TakenItem", "TakeoverEntry", "TakingOverDone", "VectorOf"]

TakenItem = TakenPage | TakenSession | TakenFact

# Returns the vector that an item has from now on; None where it has none yet.
VectorOf = Callable[[TakenItem], Vector | None]


@dataclass(slots=True, eq=False)
class TakingOverDone:
    """What came of it; ``event`` is set when it is on the disk, or ``error`` tells why it never will be.

    Attributes:
        reused: vectors that came with it.
        made: vectors made here, those of its pages left out, which follow.
        bare: its pages that have no vector yet.
        repeated: facts that say what another one, or one that was known, says.
        evicted: sessions that had to go, as there is no room for them.
        dropped: facts likewise.
    """

    event: threading.Event = field(default_factory=threading.Event)
    error: str = ""
    reused: int = 0
    made: int = 0
    bare: int = 0
    repeated: int = 0
    evicted: int = 0
    dropped: int = 0


class TakeoverEntry:
    """Enters what is taken over."""

    def __init__(
        self,
        state: MemoryState,
        reader: PageReader,
        derived: Derived,
        embedding: Embedding,
        worked_off: Callable[[int], None],
    ) -> None:
        """``worked_off(bytes)`` is told of pages that have left the backlog."""
        self._state = state
        self._reader = reader
        self._derived = derived
        self._embedding = embedding
        self._worked_off = worked_off

    def enter(self, scope: Scope, memory: Takeover, vector_of: VectorOf, done: TakingOverDone) -> list[int]:
        """Enter ``memory``, and count in ``done``; return the pages of ``scope`` whose batches are applied now."""
        pages = self._numbers(scope, (page.page_id for page in memory.pages))
        mine = set(pages.values())
        # What was made of them here goes: the store was opened without holding the scope after they had been accepted.
        forgotten = self._state.forget(scope, mine)
        self._embedding.pool.release(forgotten.rows)
        self._enter_chains(memory, pages)
        self._enter_sessions(scope, memory, pages, vector_of, done)
        self._enter_long_term(scope, memory, vector_of, done)
        self._evict(scope, done)
        batched = self._set_cursors(scope, mine, forgotten.redo)
        self._enter_page_vectors(scope, memory, pages, vector_of, done)
        scope.taken_over.append(memory.name)
        return batched

    def _numbers(self, scope: Scope, page_ids: Iterable[str]) -> dict[str, int]:
        """Return the numbers of the scope's pages by their ids, without those that are not its pages."""
        found = {page_id: self._state.ids.resolve(page_id) for page_id in page_ids}
        entered, owner = len(self._state.pages), self._state.pages.scope
        return {
            page_id: seq
            for page_id, seq in found.items()
            if seq is not None and seq < entered and owner(seq) == scope.number
        }

    def _enter_chains(self, memory: Takeover, pages: dict[str, int]) -> None:
        chains = self._state.chains
        for earlier, later in memory.links:
            if earlier in pages and later in pages and chains.can_link(pages[earlier], pages[later]):
                chains.link(pages[earlier], pages[later])
        for page_id, text in memory.overviews:
            if page_id in pages:
                chains.set_overview(pages[page_id], text)

    def _enter_sessions(
        self, scope: Scope, memory: Takeover, pages: dict[str, int], vector_of: VectorOf, done: TakingOverDone
    ) -> None:
        for taken in memory.sessions:
            seqs, fresh, tells_of = (
                array("q", sorted(pages[page_id] for page_id in ids if page_id in pages))
                for ids in (taken.pages, taken.fresh, taken.tells_of)
            )
            if not seqs:
                continue  # nothing would take it away when its pages are forgotten
            number, vector = scope.mid_term.reserve_id(), vector_of(taken)
            row = self._new_row(scope.session_rows, number, vector)
            keywords = {keyword.casefold() for keyword in taken.keywords}
            figures = taken.visits, taken.interactions, taken.last_visit, taken.accesses
            session = Session(number, taken.summary, taken.timestamp, row, keywords, seqs, *figures, fresh, tells_of)
            scope.mid_term.take_over(session)
            _count(done, taken, vector)

    def _enter_long_term(self, scope: Scope, memory: Takeover, vector_of: VectorOf, done: TakingOverDone) -> None:
        scope.long_term.since_promotion = 0  # what is hot was looked at there
        origins = self._numbers(scope, memory.origins).values()
        if not origins:
            return  # nothing would take it away when its pages are forgotten
        profile = scope.long_term.profile
        text, updated = memory.profile.strip(), memory.updated
        if profile.text:
            text, updated = "\n\n".join(filter(None, (text, profile.text))), profile.updated
        profile.update(text, updated, sorted(origins))
        for taken in memory.facts:
            vector = vector_of(taken)
            fact, new = scope.facts(of_user=taken.of_user).take_over(taken.text, taken.timestamp)
            done.repeated += not new
            if new:
                fact.row = self._new_row(scope.fact_rows(of_user=taken.of_user), scope.fact_tag(fact.fact_id), vector)
                _count(done, taken, vector)
        if memory.facts:
            scope.long_term.origins = array("q", sorted({*scope.long_term.origins, *origins}))

    def _new_row(self, owner: int, tag: int, vector: Vector | None) -> int:
        """Return a row with the vector, which can be found from now on; -1 where there is none."""
        if vector is None:
            return -1
        pool = self._embedding.pool
        row = int(pool.allocate(owner, 1)[0])
        pool.write([row], vector[None])
        pool.commit([row], np.array([tag], np.int64))
        return row

    def _evict(self, scope: Scope, done: TakingOverDone) -> None:
        evicted, rows = self._state.evict(scope)
        facts = [fact for of_user in (True, False) for fact in scope.facts(of_user=of_user).evict()]
        done.evicted, done.dropped = len(evicted), len(facts)
        self._embedding.pool.release([*rows, *(fact.row for fact in facts if fact.row >= 0)])

    def _set_cursors(self, scope: Scope, seqs: Collection[int], redo: set[int]) -> list[int]:
        """Have no batch made of these pages, and of ``redo`` one again; return all whose batches are applied."""
        done = set(applied(self._state, scope, ())).difference(redo).union(seqs)
        pages = self._state.pages.seqs_of(scope.number)
        is_done = np.isin(pages, np.fromiter(done, np.int64, len(done)))
        scope.given = int(np.flatnonzero(is_done)[-1]) + 1 if is_done.any() else 0
        scope.gaps = pages[: scope.given][~is_done[: scope.given]].tolist()
        batched: list[int] = pages[is_done].tolist()
        return batched

    def _enter_page_vectors(
        self, scope: Scope, memory: Takeover, numbers: dict[str, int], vector_of: VectorOf, done: TakingOverDone
    ) -> None:
        """Enter the vectors that came along; pages that have none follow, as others do."""
        pages, pool = self._state.pages, self._embedding.pool
        known = {numbers[page.page_id]: vector_of(page) for page in memory.pages if page.page_id in numbers}
        vectors = {seq: vector for seq, vector in known.items() if vector is not None}
        done.reused += len(vectors)
        seqs = sorted(seq for seq in vectors if pages.row(seq) < 0 and seq not in scope.aside)
        if not seqs:
            return
        rows, stacked = pool.allocate(scope.page_rows, len(seqs)), np.array([vectors[seq] for seq in seqs])
        pool.write(rows, stacked)
        pool.commit(rows, np.array(seqs, np.int64), shown=True)
        for seq, row in zip(seqs, rows.tolist(), strict=True):
            pages.set_row(seq, row)
        # No digests: these vectors are like this model's, and need not be exactly what it makes of the texts.
        self._derived.vectors(VectorFrame(np.array(seqs, np.int64), stacked, np.zeros(len(seqs), np.uint64)))
        self._worked_off(sum(map(len, self._reader.read_many(seqs))))


def _count(done: TakingOverDone, item: TakenItem, vector: Vector | None) -> None:
    done.reused += vector is not None and vector is item.vector
    done.made += vector is not None and vector is not item.vector
