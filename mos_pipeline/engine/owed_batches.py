"""Continuity and topics that are owed: asked for again, and put in the place of what had stood in.

Owned by the coordinator. The answers that stood in stay in force until the model's are there and their summaries have
vectors; then one event replaces them. Where that is not written, they are still owed at the next opening.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from functools import partial
from heapq import merge
from typing import Any

import numpy as np

from mos_pipeline.engine.batches import LLM, Batches
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.events import Event, Repaid
from mos_pipeline.engine.owed_work import Ended, Fate, OwedWork, take_answers
from mos_pipeline.engine.placing import continuity, place_again
from mos_pipeline.engine.task_pages import task_page
from mos_pipeline.memory.ascending import contains
from mos_pipeline.memory.outcomes import BatchRepaid, Placed
from mos_pipeline.memory.owed import OF_BATCH
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.reading import PageReader

__all__ = ["OwedBatches"]


class OwedBatches:
    """Repays what is owed of batches; a scope's pages only while no batch of it is under way."""

    def __init__(
        self,
        capacity: int,
        state: MemoryState,
        reader: PageReader,
        derived: Derived,
        desk: Desk,
        embedding: Embedding,
        batches: Batches,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Ask of ``capacity`` pages at once; ``clock()`` is the present time, in unix seconds."""
        self._capacity = capacity
        self._state = state
        self._reader = reader
        self._derived = derived
        self._desk = desk
        self._embedding = embedding
        self._batches = batches
        self._clock = clock

    def choose(self, scope: Scope, passed: Container[int]) -> list[int] | None:
        """Return the next neighbouring pages of which the same tasks are owed; see ``Repayer``."""
        owed = merge(*(scope.owed.pages(task) for task in OF_BATCH))
        first = next((seq for seq in owed if seq not in passed and seq not in scope.aside), None)
        if first is None:
            return []
        if scope.held or scope.lifting or scope.gaps or self._batches.count_of(scope):
            return None  # fresh work first, which may change what these pages are part of
        if self._is_bare(scope, first):
            return None
        return self._run(scope, first, passed)

    def _is_bare(self, scope: Scope, seq: int) -> bool:
        """Return whether a vector is still to be made again: that of a page, or of the one that it may continue."""
        seqs = self._state.pages.seqs_of(scope.number)
        at = int(np.searchsorted(seqs, seq))
        return not all(
            self._may_ask(scope, one) or one in scope.aside for one in seqs[max(0, at - 1) : at + 1].tolist()
        )

    def _run(self, scope: Scope, first: int, passed: Container[int]) -> list[int]:
        tasks, run = self._tasks(scope, first), [first]
        seqs = self._state.pages.seqs_of(scope.number)
        at = int(np.searchsorted(seqs, first)) + 1
        for seq in seqs[at : at + self._capacity - 1].tolist():
            goes_on = self._state.chains.after(run[-1]) in (-1, seq)  # else its link would be in another's way
            if seq in passed or not goes_on or self._tasks(scope, seq) != tasks or not self._may_ask(scope, seq):
                break
            run.append(seq)
        return run

    def _tasks(self, scope: Scope, seq: int) -> list[str]:
        return [task for task in OF_BATCH if contains(scope.owed.pages(task), seq)]

    def _may_ask(self, scope: Scope, seq: int) -> bool:
        return self._state.pages.row(seq) >= 0 and seq not in scope.aside

    def ask(self, scope: Scope, seqs: list[int], ended: Ended) -> OwedWork:
        """Ask the model of pages from ``choose``; see ``Repayer``."""
        work = OwedWork(scope, seqs, self._tasks(scope, seqs[0]), ended)
        before = self._batches.before(scope, seqs[0])
        if before >= 0 and self._state.chains.after(before) in (-1, seqs[0]):
            work.before = before
        work.chain = self._state.chains.chain_of(work.before)
        vectors = self._embedding.pool.read([self._state.pages.row(seq) for seq in seqs])
        pages = list(map(task_page, self._reader.read_many(seqs)))
        work.timestamps = [page[2] for page in pages]
        payload = {
            "pages": pages,
            "vectors": vectors.tobytes(),
            "dimension": vectors.shape[1],
            "previous": self._previous(work.before),
            "homeless": list(range(len(seqs))) if "topics" in work.tasks else [],
            "tasks": work.tasks,
        }
        self._desk.submit(LLM, "batch again", payload, partial(self._told, work))
        return work

    def _previous(self, before: int) -> dict[str, Any] | None:
        if before < 0:
            return None
        vector = self._embedding.pool.read([self._state.pages.row(before)])
        overview = self._state.chains.overview_until(before)
        return {"page": task_page(self._reader.read(before)), "vector": vector.tobytes(), "overview": overview}

    def _told(self, work: OwedWork, outcome: Outcome) -> None:
        if work.over or not take_answers(work, outcome):
            return
        if "topics" not in work.answered:
            self._apply(work, [])
            return
        texts = [topic["content"] for topic in work.answers["topics"]]
        self._embedding.send(work.scope.session_rows, texts, partial(self._embedded, work), ahead=True)

    def _embedded(self, work: OwedWork, rows: list[int], outcome: Outcome) -> None:
        if not work.over and outcome.fate == "done":
            self._apply(work, rows)
            return
        self._embedding.pool.release(rows)
        work.end(Fate.UNUSABLE)

    def _apply(self, work: OwedWork, rows: list[int]) -> None:
        scope, pool, chains = work.scope, self._embedding.pool, self._state.chains
        owed = all(scope.owed.owes(task, work.seqs) for task in work.answered)
        if not owed or chains.chain_of(work.before) != work.chain:
            pool.release(rows)
            work.end(Fate.DROPPED)
            return
        outcome = self._outcome(work, rows)
        base = self._batches.builds_on(scope)
        told = chains.chain_of(base), chains.overview(base)
        freed = self._state.repay_batch(scope, outcome)
        evicted, more = self._state.evict(scope)
        vectors = pool.read([placed.row for placed in outcome.placed if placed.founded])
        event = Repaid(outcome._replace(evicted=evicted), vectors)
        self._derived.event(Event(scope.user_id, scope.assistant_id, event))
        pool.release([*freed, *more])
        if (chains.chain_of(base), chains.overview(base)) != told:
            self._batches.forget(scope, set())  # what has begun meanwhile goes on from what is no more
            self._batches.advance(scope)
        work.end(Fate.REPAID)

    def _outcome(self, work: OwedWork, rows: list[int]) -> BatchRepaid:
        links, overviews, placed = list[int](), list[list[Any]](), list[Placed]()
        told = dict.fromkeys(work.answered, work.seqs)
        if "continuity" in told:
            links, overviews = continuity(work.before, work.seqs, work.answers["continuity"])
        if "topics" in told:
            topics, pool = work.answers["topics"], self._embedding.pool
            placed = place_again(work.scope, work.seqs, topics, rows, work.timestamps, pool)
        asked = told.get("continuity", []), links, overviews, told.get("topics", [])
        return BatchRepaid(*asked, placed, self._clock())
