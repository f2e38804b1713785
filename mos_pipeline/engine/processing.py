"""Giving out pages: who is next, and having them embedded. Owned by the coordinator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.aside import Aside
from mos_pipeline.engine.batches import Batches
from mos_pipeline.engine.bulk import Bulk
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.holes import Holes
from mos_pipeline.engine.lifting import Lifting, unlifted
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.engine.promotion import Promotion, Stated
from mos_pipeline.memory.scheduling import FairQueue
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode_record, embedded_text, own_words, stated_fact
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.derived import VectorFrame
from mos_pipeline.store.reading import PageReader

__all__ = ["Processing"]

# A writer that can't write must not make results pile up in memory: above this no new work is given out.
MAX_UNWRITTEN_BYTES = 32 << 20
FRESH_TURNS = 8  # turns of users with new pages, after which some work of the background goes before the next


class Processing:
    """The pages of all scopes that are not embedded yet.

    Attributes:
        embedded: pages that got their vector since the opening.
    """

    def __init__(
        self,
        capacity: int,
        state: MemoryState,
        reader: PageReader,
        persistence: Persistence,
        derived: Derived,
        embedding: Embedding,
        aside: Aside,
        batches: Batches,
        bulk: Bulk,
        worked_off: Callable[[int], None],
        promotion: Promotion,
    ) -> None:
        """Give out ``capacity`` pages at once; ``worked_off(bytes)`` is told of pages that have left the backlog."""
        self._capacity = capacity
        self._state = state
        self._reader = reader
        self._persistence = persistence
        self._derived = derived
        self._embedding = embedding
        self._aside = aside
        self._batches = batches
        self._bulk = bulk
        self._worked_off = worked_off
        self._promotion = promotion
        self._queue: FairQueue[int] = FairQueue()
        self._queued: set[int] = set()
        self._loose: set[int] = set()
        self._under_way: set[int] = set()  # pages that the embedder has
        self._holes = Holes(state.pages, capacity)
        self._lifting = Lifting(state, derived, embedding, aside, self._embed_missing, self._lifted)
        self._turns = 0
        self.embedded = 0
        self.draining = False

    @property
    def idle(self) -> bool:
        """Whether every page that should be worked on has been."""
        busy = self._queued or self._under_way or (self.draining and self._loose)
        return not busy and self._batches.idle and self._lifting.idle

    @property
    def lifted(self) -> bool:
        """Whether everything that had a vector by another model has one by the store's; new pages may wait."""
        return self._lifting.idle and not any(map(self._lifting.had_vector, self._under_way))

    @property
    def saturated(self) -> bool:
        """Whether no batch can be given out until the embedder answers."""
        return self._embedding.saturated

    @property
    def may_wait(self) -> bool:
        """Whether the embedder has enough for now."""
        return self._embedding.half_full

    def page_came(self, scope: Scope, seq: int) -> None:
        """Note that ``scope`` has a new page ``seq``."""
        if seq > scope.latest_online:
            self._bulk.came(scope)
        self._loose.add(scope.number)
        self._enqueue(scope)

    def restore(self, stale: npt.NDArray[np.bool_]) -> None:
        """Take up a restored store, before its scopes; pages ``stale`` had vectors by another model, bool (n,)."""
        self._lifting.stale = stale

    def resume(self, scope: Scope, bare: list[int]) -> None:
        """Take up a restored scope; its pages ``bare`` had vectors, and have none that is of use."""
        self._lifting.restore(scope, bare)
        if self._has_loose(scope):
            self._bulk.came(scope)
        self.look_again(scope)

    def lack_vectors(self, scope: Scope, bare: list[int]) -> None:
        """Note that pages ``bare`` of ``scope`` have their places in sessions, and no vectors."""
        self._lifting.lack(scope, bare)

    def _lifted(self, scope: Scope) -> None:
        self.look_again(scope)
        self._promotion.go_on(scope)

    def counts(self, seq: int) -> bool:
        """Return whether a page without a vector is part of the backlog; not where it had one by another model."""
        return not self._lifting.had_vector(seq)

    @property
    def unlifted(self) -> int:
        """How many vectors of another model are still to be made again."""
        lifting = (scope for scope in self._state.scopes if scope.lifting)
        return unlifted(self._state, lifting, self._lifting.stale) + self._lifting.given_up

    def look_again(self, scope: Scope) -> None:
        """Take up what ``scope`` has come to have for other reasons than a new page."""
        self._lifting.look(scope)
        if self._has_loose(scope):
            self._loose.add(scope.number)
            self._enqueue(scope)
        else:
            self._loose.discard(scope.number)
        self._advance(scope)

    def retry(self, scope: Scope) -> list[int]:
        """Take up again the pages of ``scope`` that were set aside, but for those whose batches are still under way.

        Returns:
            These pages, ascending; those of them without a vector are to be counted as backlog.
        """
        busy = self.in_batches(scope) | self._under_way
        seqs = sorted(seq for seq in scope.aside if seq not in busy)
        if seqs:
            self._aside.lift(scope, seqs)
            given = set(self._state.pages.seqs_of(scope.number)[: scope.given].tolist())
            scope.gaps = sorted({*scope.gaps, *given.intersection(seqs)})
            self.look_again(scope)
        return seqs

    def drain(self) -> None:
        """From now on embed the pages of rings that are not full, too."""
        self.draining = True
        for number in list(self._loose):
            self._enqueue(self._state.scopes[number])
        for number in self._bulk.scopes:
            self._advance(self._state.scopes[number])

    def due(self) -> float | None:
        """Return when (monotonic seconds) ``end_bulk`` has something to do; None for never."""
        return self._bulk.due

    def end_bulk(self) -> None:
        """Let nothing of a scope wait any longer for which nothing has come for ``llm.bulk_wait_s``."""
        for number in self._bulk.overdue:
            scope = self._state.scopes[number]
            if self._has_more(scope):
                self._bulk.came(scope)
            else:
                self._end_bulk(scope)

    def dispatch(self) -> bool:
        """Give out one batch, or some work of the background, if there is room for it; return whether there was."""
        if not self._embedding.ready or self._embedding.saturated:
            return False
        if self._persistence.outstanding_bytes > MAX_UNWRITTEN_BYTES:
            return False
        if self._background_is_next():
            self._turns = 0
            self._lifting.give()
            return True
        if not self._queued:
            return False
        self._turns += 1
        number = self._queue.pop()
        self._queued.discard(number)
        self._give(self._state.scopes[number])
        return True

    @property
    def goes_on(self) -> bool:
        """Whether ``go_on`` may have something to do."""
        return self._batches.goes_on

    def go_on(self, until: float) -> None:
        """Go on with batches: one step in any case, more while ``time.perf_counter()`` is below ``until``."""
        self._batches.go_on(until)

    def _background_is_next(self) -> bool:
        """Whether work of the background is due: it stays behind new pages, and gets a turn all the same."""
        if not self._lifting.waiting:
            return False
        due = self._turns >= FRESH_TURNS if self._queued else not self._embedding.half_full
        return self._lifting.hurried or due

    def in_batches(self, scope: Scope) -> set[int]:
        """Return the pages of ``scope`` whose batches have begun and are not applied yet."""
        return set(self._batches.under_way(scope))

    def forget(self, scope: Scope, seqs: set[int]) -> None:
        """Leave out pages that belong to nobody any more; the rest of their batches is begun anew."""
        self._holes.forget(scope, seqs)
        self._lifting.forget(scope, seqs)
        self._batches.forget(scope, seqs)
        waiting = [seq for seq in seqs if not self._aside.settled(scope, seq) and seq not in self._under_way]
        self._worked_off(sum(map(len, self._reader.read_many([seq for seq in waiting if self.counts(seq)]))))

    def _waiting(self, scope: Scope) -> int:
        return len(self._state.pages.seqs_of(scope.number)) - scope.given

    def _enqueue(self, scope: Scope) -> None:
        if scope.held:
            return
        if scope.lifting:
            self._lifting.hurry(scope)
            return
        if scope.number in self._queued:
            return
        wanted = self._holes.of(scope) or self._waiting(scope) >= self._capacity
        wanted = wanted or (self.draining and scope.number in self._loose)
        if wanted:
            self._queued.add(scope.number)
            self._queue.push(scope.number, self._waiting(scope))

    def _give(self, scope: Scope) -> None:
        if self._holes.of(scope):
            seqs = self._holes.take(scope)
            self._batches.begin(scope, seqs)
        else:
            seqs = self._take(scope)
        self._embed_missing(scope, seqs)
        if not self._has_loose(scope):
            self._loose.discard(scope.number)
        self._enqueue(scope)
        self._advance(scope)

    def _take(self, scope: Scope) -> list[int]:
        """Begin the next batches of ``scope``, one or (of a backlog, for a quick embedder) some; return their pages.

        Where there is no whole one, the pages that are left are returned, and no batch is begun.
        """
        size = self._capacity
        whole = min(max(1, self._embedding.turn // size), max(1, self._waiting(scope) // size))
        seqs: list[int] = self._state.pages.seqs_of(scope.number)[scope.given : scope.given + whole * size].tolist()
        for start in range(0, len(seqs) - size + 1, size):
            scope.given += size
            self._batches.begin(scope, seqs[start : start + size])
        return seqs

    def _advance(self, scope: Scope) -> None:
        """Do what can be done for ``scope`` now; while everything shall be done, it waits only for what is to come."""
        if self.draining and self._bulk.goes_on(scope) and not self._has_more(scope):
            self._end_bulk(scope)
        else:
            self._batches.advance_soon(scope)

    def _end_bulk(self, scope: Scope) -> None:
        self._bulk.end(scope)
        self._batches.advance(scope)
        if not self._batches.count_of(scope):  # else what is applied last leads there
            self._promotion.go_on(scope)

    def _has_more(self, scope: Scope) -> bool:
        """Return whether more pages of ``scope`` are on their way to be embedded, for batches."""
        coming = self._holes.of(scope) or self._waiting(scope) >= self._capacity
        return coming or scope.latest >= len(self._state.pages) or self._batches.is_embedding(scope)

    def _has_loose(self, scope: Scope) -> bool:
        """Whether pages of ``scope`` are neither embedded nor on their way to be."""
        if self._holes.of(scope) or self._waiting(scope) >= self._capacity:
            return True
        tail = map(int, self._state.pages.seqs_of(scope.number)[scope.given :])
        return any(not self._aside.settled(scope, seq) and seq not in self._under_way for seq in tail)

    def _embed_missing(self, scope: Scope, seqs: list[int]) -> None:
        missing = [seq for seq in seqs if not self._aside.settled(scope, seq) and seq not in self._under_way]
        if missing:
            self._under_way.update(missing)
            self._embed(scope, missing)

    def _embed(self, scope: Scope, seqs: list[int]) -> None:
        records = self._reader.read_many(seqs)
        pages = [own_words(decode_record(record)) for record in records]
        facts = {
            seq: Stated(fact, page.timestamp)
            for seq, page in zip(seqs, pages, strict=True)
            if (fact := stated_fact(page)) and not self._lifting.had_vector(seq)
        }
        # A page that is a fact has one vector as both: that of its own words alone.
        texts = [stated_fact(page) or embedded_text(page.user_input, page.agent_response) for page in pages]
        for seq, page in zip(seqs, pages, strict=True):
            self._batches.remember(seq, page)
        sizes = [len(record) * self.counts(seq) for seq, record in zip(seqs, records, strict=True)]
        answer = partial(self._embedded, scope, seqs, sizes, facts)
        self._embedding.send(scope.page_rows, texts, answer, ahead=self._batches.count_of(scope) == 1)

    def _embedded(
        self,
        scope: Scope,
        seqs: list[int],
        sizes: list[int],
        facts: dict[int, Stated],
        rows: list[int],
        outcome: Outcome,
    ) -> None:
        if outcome.fate == "done":
            self._enter(scope, seqs, rows, outcome.result, facts)
        else:
            self._embedding.pool.release(rows)
            if outcome.fate == "down":
                return  # stays in the backlog until the store is opened with an embedder that works
            if len(seqs) > 1:
                self._embed_halves(scope, seqs, sizes)
                return
            if self._state.pages.is_kept(seqs[0]):
                self._aside.put(scope, seqs[0], f"embedding it failed: {outcome.error}")
        self._under_way.difference_update(seqs)
        self._worked_off(sum(sizes))
        if self._bulk.goes_on(scope):
            self._bulk.came(scope)
        self._lifting.look(scope)
        self._advance(scope)

    def _enter(
        self, scope: Scope, seqs: list[int], rows: list[int], digests: list[int], facts: dict[int, Stated]
    ) -> None:
        """Make vectors searchable, but for those of pages that were forgotten while they were computed."""
        pool, kept = self._embedding.pool, list(map(self._state.pages.is_kept, seqs))
        pool.release([row for row, wanted in zip(rows, kept, strict=True) if not wanted])
        numbers = np.array(seqs, np.int64)[kept]
        rows = [row for row, wanted in zip(rows, kept, strict=True) if wanted]
        pool.commit(rows, numbers, shown=True)
        for seq, row in zip(numbers.tolist(), rows, strict=True):
            self._state.pages.set_row(seq, row)
        self.embedded += len(rows)
        made = VectorFrame(numbers, pool.read(rows), np.array(digests, np.uint64)[kept])
        stated = np.isin(numbers, list(facts)) if facts else np.zeros(len(numbers), np.bool_)
        self._derived.vectors(made.where(~stated))
        if stated.any():
            mine = made.where(stated)
            event = self._promotion.enter(scope, {seq: facts[seq] for seq in mine.seqs.tolist()}, mine.vectors)
            self._derived.event_before_vectors(event, mine)

    def _embed_halves(self, scope: Scope, seqs: list[int], sizes: list[int]) -> None:
        """Try both halves: one of the pages can't be worked on. Those forgotten meanwhile are left out."""
        gone = {seq: size for seq, size in zip(seqs, sizes, strict=True) if not self._state.pages.is_kept(seq)}
        self._under_way.difference_update(gone)
        self._worked_off(sum(gone.values()))
        middle = len(seqs) // 2
        for half in (seqs[:middle], seqs[middle:]):
            if left := [seq for seq in half if seq not in gone]:
                self._embed(scope, left)
