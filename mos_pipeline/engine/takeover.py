"""Memory that another library made is taken over: vectors are looked at and made, then all is entered and written.

Owned by the coordinator. The scope is held meanwhile: nobody else works on its pages. It is written as one checkpoint,
by which everything that knows a store's own memory knows this, too: it is there whole or not at all.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mos_pipeline.engine.checkpoints import applied, encode_checkpoints, take
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.engine.processing import Processing
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.memory.session import Session
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.takeover import TakenFact, TakenPage, TakenSession, Takeover, Vector
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.reading import PageReader
from mos_pipeline.store.segments import FrameAddress

__all__ = ["TakingOver", "TakingOverDone"]

SAME_COSINE = 0.95  # of a text's vector there and here, from which on both were made by one model
TEXTS_AT_ONCE = 32

_Item = TakenPage | TakenSession | TakenFact


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


@dataclass(slots=True, eq=False)
class _Work:
    """A takeover under way; ``vectors`` are those of sessions' and facts' texts made here."""

    scope: Scope
    memory: Takeover
    done: TakingOverDone
    reuse: bool = False
    waits_for: int = 0  # texts at the embedder
    vectors: dict[str, Vector] = field(default_factory=dict)


class TakingOver:
    """Takes over memory, as many at a time as are asked for."""

    def __init__(
        self,
        state: MemoryState,
        reader: PageReader,
        derived: Derived,
        persistence: Persistence,
        embedding: Embedding,
        processing: Processing,
        promotion: Promotion,
        worked_off: Callable[[int], None],
    ) -> None:
        """``worked_off(bytes)`` is told of pages that have left the backlog."""
        self._state = state
        self._reader = reader
        self._derived = derived
        self._persistence = persistence
        self._embedding = embedding
        self._processing = processing
        self._promotion = promotion
        self._worked_off = worked_off
        self._waiting = list[_Work]()  # for the embedder

    def begin(self, user_id: str, assistant_id: str, memory: Takeover, done: TakingOverDone) -> None:
        """Take over ``memory``, whose pages are in the columns; the scope is released when that is entered."""
        work = _Work(self._state.scope(user_id, assistant_id), memory, done)
        if self._embedding.ready:
            self._probe(work)
        else:
            self._waiting.append(work)

    def embedder_ready(self) -> None:
        """Begin what has waited for the embedder."""
        while self._waiting:
            self._probe(self._waiting.pop(0))

    def release(self, scope: Scope) -> None:
        """Have the pages of ``scope`` worked on like any other's from now on."""
        scope.held = False
        self._processing.look_again(scope)
        self._promotion.go_on(scope)

    # Vectors

    def _probe(self, work: _Work) -> None:
        """Embed some texts whose vectors came along, the first and last of each kind: are they this model's?"""
        dimension = self._derived.dimension
        memory = work.memory
        known = [_vectored(part, dimension) for part in (memory.pages, memory.sessions, memory.facts)]
        probes = [probe for part in known for probe in (*part[:1], *part[1:][-1:])]
        if probes:
            self._embed(work, [text for text, _ in probes], partial(self._probed, work, probes))
        else:
            self._make(work)

    def _probed(self, work: _Work, probes: Sequence[tuple[str, Vector]]) -> None:
        found = [(work.vectors.get(text), vector) for text, vector in probes]
        work.reuse = all(here is not None and _cosine(here, there) >= SAME_COSINE for here, there in found)
        self._make(work)

    def _make(self, work: _Work) -> None:
        """Embed what has no vector that is of use."""
        items: tuple[TakenSession | TakenFact, ...] = (*work.memory.sessions, *work.memory.facts)
        texts = dict.fromkeys(_text(item) for item in items if self._vector_of(work, item) is None)
        self._embed(work, list(texts), partial(self._enter, work))

    def _vector_of(self, work: _Work, item: TakenSession | TakenFact) -> Vector | None:
        if work.reuse and item.vector is not None and len(item.vector) == self._derived.dimension:
            return item.vector
        return work.vectors.get(_text(item))

    def _embed(self, work: _Work, texts: Sequence[str], then: Callable[[], None]) -> None:
        """Have ``texts`` embedded into ``work.vectors``, then go on; one that can't be stays without."""
        work.waits_for = len(texts)
        if not texts:
            then()
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            self._send(work, texts[start : start + TEXTS_AT_ONCE], then)

    def _send(self, work: _Work, texts: Sequence[str], then: Callable[[], None]) -> None:
        self._embedding.send(work.scope.session_rows, texts, partial(self._embedded, work, texts, then))

    def _embedded(
        self, work: _Work, texts: Sequence[str], then: Callable[[], None], rows: list[int], outcome: Outcome
    ) -> None:
        found = self._embedding.pool.read(rows)
        self._embedding.pool.release(rows)
        if outcome.fate == "down":
            self._fail(work, f"the embedder is down: {outcome.error}")
            return
        if outcome.fate != "done" and len(texts) > 1:
            middle = len(texts) // 2
            self._send(work, texts[:middle], then)
            self._send(work, texts[middle:], then)
            return
        if outcome.fate == "done":
            work.vectors.update(zip(texts, found, strict=True))
        work.waits_for -= len(texts)
        if not work.waits_for and not work.done.error:
            then()

    def _fail(self, work: _Work, reason: str) -> None:
        work.done.error = work.done.error or reason
        work.done.event.set()

    # Entering

    def _enter(self, work: _Work) -> None:
        scope, memory = work.scope, work.memory
        pages = self._numbers(scope, (page.page_id for page in memory.pages))
        redo = self._clear(scope, pages.values())
        self._enter_chains(memory, pages)
        self._enter_sessions(work, pages)
        self._enter_long_term(work)
        self._evict(work)
        batched = self._set_cursors(scope, pages.values(), redo)
        self._enter_page_vectors(work, pages)
        scope.taken_over.append(memory.name)
        self._write(work, batched)
        bare = [seq for seq in batched if self._state.pages.row(seq) < 0 and seq not in scope.aside]
        work.done.bare = len(bare)
        self._processing.lack_vectors(scope, bare)
        self.release(scope)

    def _numbers(self, scope: Scope, page_ids: Iterable[str]) -> dict[str, int]:
        """Return the numbers of the scope's pages by their ids, without those that are not its pages."""
        found = {page_id: self._state.ids.resolve(page_id) for page_id in page_ids}
        entered, owner = len(self._state.pages), self._state.pages.scope
        return {
            page_id: seq
            for page_id, seq in found.items()
            if seq is not None and seq < entered and owner(seq) == scope.number
        }

    def _clear(self, scope: Scope, seqs: Iterable[int]) -> set[int]:
        """Drop what was made of these pages here, and return the other pages that are to be worked on again.

        There is some where the store was opened without holding the scope after its pages had been accepted.
        """
        mine = set(seqs)
        forgotten = self._state.forget(scope, mine)
        self._embedding.pool.release(forgotten.rows)
        return forgotten.redo

    def _enter_chains(self, memory: Takeover, pages: dict[str, int]) -> None:
        chains = self._state.chains
        for earlier, later in memory.links:
            if earlier in pages and later in pages and chains.can_link(pages[earlier], pages[later]):
                chains.link(pages[earlier], pages[later])
        for page_id, text in memory.overviews:
            if page_id in pages:
                chains.set_overview(pages[page_id], text)

    def _enter_sessions(self, work: _Work, pages: dict[str, int]) -> None:
        scope, pool = work.scope, self._embedding.pool
        for taken in work.memory.sessions:
            seqs, fresh, tells_of = (
                array("q", sorted(pages[page_id] for page_id in ids if page_id in pages))
                for ids in (taken.pages, taken.fresh, taken.tells_of)
            )
            if not seqs:
                continue  # nothing would take it away when its pages are forgotten
            number, vector = scope.mid_term.reserve_id(), self._vector_of(work, taken)
            row = -1
            if vector is not None:
                (row,) = pool.allocate(scope.session_rows, 1).tolist()
                pool.write([row], vector[None])
                pool.commit([row], np.array([number], np.int64))
            keywords = {keyword.casefold() for keyword in taken.keywords}
            figures = taken.visits, taken.interactions, taken.last_visit, taken.accesses
            session = Session(number, taken.summary, taken.timestamp, row, keywords, seqs, *figures, fresh, tells_of)
            scope.mid_term.take_over(session)
            self._count(work, taken, vector)

    def _enter_long_term(self, work: _Work) -> None:
        scope, memory, pool = work.scope, work.memory, self._embedding.pool
        origins = sorted(self._numbers(scope, memory.origins).values())
        long_term = scope.long_term
        if origins:
            before = long_term.profile.text
            profile = "\n\n".join(filter(None, (memory.profile.strip(), before)))
            long_term.profile.update(profile, long_term.profile.updated if before else memory.updated, origins)
        for taken in memory.facts if origins else ():
            base, vector = scope.facts(of_user=taken.of_user), self._vector_of(work, taken)
            fact, new = base.take_over(taken.text, taken.timestamp)
            work.done.repeated += not new
            if new and vector is not None:
                (fact.row,) = pool.allocate(scope.fact_rows(of_user=taken.of_user), 1).tolist()
                pool.write([fact.row], vector[None])
                pool.commit([fact.row], np.array([scope.fact_tag(fact.fact_id)], np.int64))
            if new:
                self._count(work, taken, vector)
        if memory.facts:
            long_term.origins = array("q", sorted({*long_term.origins, *origins}))
        long_term.since_promotion = 0  # what is hot was looked at there

    def _count(self, work: _Work, item: TakenSession | TakenFact, vector: Vector | None) -> None:
        work.done.reused += vector is not None and vector is item.vector
        work.done.made += vector is not None and vector is not item.vector

    def _evict(self, work: _Work) -> None:
        scope = work.scope
        evicted, rows = self._state.evict(scope)
        facts = [fact for of_user in (True, False) for fact in scope.facts(of_user=of_user).evict()]
        work.done.evicted, work.done.dropped = len(evicted), len(facts)
        self._embedding.pool.release([*rows, *(fact.row for fact in facts if fact.row >= 0)])

    def _set_cursors(self, scope: Scope, seqs: Iterable[int], redo: set[int]) -> list[int]:
        """Have no batch made of these pages, and of ``redo`` one again; return all whose batches are applied."""
        done = set(applied(self._state, scope, ())).difference(redo).union(seqs)
        pages = self._state.pages.seqs_of(scope.number)
        is_done = np.isin(pages, np.fromiter(done, np.int64, len(done)))
        scope.given = int(np.flatnonzero(is_done)[-1]) + 1 if is_done.any() else 0
        scope.gaps = pages[: scope.given][~is_done[: scope.given]].tolist()
        batched: list[int] = pages[is_done].tolist()
        return batched

    def _enter_page_vectors(self, work: _Work, numbers: dict[str, int]) -> None:
        """Enter the vectors that came along; pages that have none follow, as others do."""
        scope, pages, pool = work.scope, self._state.pages, self._embedding.pool
        vectors = {
            numbers[page.page_id]: page.vector
            for page in work.memory.pages
            if work.reuse
            and page.page_id in numbers
            and page.vector is not None
            and len(page.vector) == self._derived.dimension
        }
        work.done.reused += len(vectors)
        seqs = sorted(seq for seq in vectors if pages.row(seq) < 0 and seq not in scope.aside)
        if not seqs:
            return
        rows, stacked = pool.allocate(scope.page_rows, len(seqs)), np.array([vectors[seq] for seq in seqs])
        pool.write(rows, stacked)
        pool.commit(rows, np.array(seqs, np.int64), shown=True)
        for seq, row in zip(seqs, rows.tolist(), strict=True):
            pages.set_row(seq, row)
        self._derived.vectors(np.array(seqs, np.int64), stacked)
        self._worked_off(sum(map(len, self._reader.read_many(seqs))))

    def _write(self, work: _Work, batched: list[int]) -> None:
        self._derived.flush()  # what has happened before comes before
        taken = take(self._state, work.scope, batched, self._embedding.pool.read)
        body = encode_checkpoints([taken], self._derived.dimension)
        last_page = max((*batched, *taken.pages_told_of()), default=-1)
        self._persistence.frame(FrameKind.STATE, body, last_page, partial(self._written, work))

    def _written(self, work: _Work, place: FrameAddress | None) -> None:
        if place is None:
            work.done.error = "the writer refused it; see the log"
        work.done.event.set()


def _text(item: _Item) -> str:
    return item.summary if isinstance(item, TakenSession) else item.text


def _vectored(items: Sequence[_Item], dimension: int) -> list[tuple[str, Vector]]:
    """Return text and vector of the items whose vectors could be this model's."""
    found = ((_text(item), item.vector) for item in items)
    return [(text, vector) for text, vector in found if vector is not None and len(vector) == dimension]


def _cosine(one: Vector, other: Vector) -> float:
    return float(one.astype(np.float32) @ other.astype(np.float32))
