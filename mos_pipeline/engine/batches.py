"""Batches on their way into mid-term memory: tasks, summaries, and what is applied. Owned by the coordinator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np

from mos_pipeline.engine.aside import Aside
from mos_pipeline.engine.bulk import Bulk
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.events import BatchDone, Event
from mos_pipeline.engine.flow import Batch, ScopeFlow, Step
from mos_pipeline.engine.placing import decide
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode_record, own_words
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.reading import PageReader

__all__ = ["LLM", "Batches", "task_page"]

logger = logging.getLogger(__name__)

LLM = "llm"
MOST_PAGES = 128  # told of at once, however short they are: so many an answer can be asked to name


class Batches:
    """The batches of all scopes that have begun and are not applied yet.

    Attributes:
        placed: pages that came into a session since the opening.
    """

    def __init__(
        self,
        state: MemoryState,
        reader: PageReader,
        derived: Derived,
        desk: Desk,
        embedding: Embedding,
        aside: Aside,
        bulk: Bulk,
        applied: Callable[[Scope], None],
    ) -> None:
        """``applied(scope)`` is told of every batch that has become part of mid-term memory."""
        self._state = state
        self._reader = reader
        self._derived = derived
        self._desk = desk
        self._embedding = embedding
        self._aside = aside
        self._bulk = bulk
        self._applied = applied
        self._flows: dict[int, ScopeFlow] = {}
        self.placed = 0

    @property
    def idle(self) -> bool:
        """Whether every batch that was begun is applied."""
        return not self._flows

    @property
    def pages(self) -> int:
        """How many pages are in batches that have begun and are not applied yet."""
        return sum(len(batch.seqs) for flow in self._flows.values() for batch in flow.batches)

    def is_embedding(self, scope: Scope) -> bool:
        """Return whether batches of ``scope`` wait for vectors of their pages."""
        flow = self._flows.get(scope.number)
        latest_first = reversed(flow.batches) if flow is not None else ()  # where they are, if there are any
        waiting = takewhile(lambda batch: batch.step == Step.EMBEDDING, latest_first)
        return any(not self._aside.settled(scope, seq) for batch in waiting for seq in batch.seqs)

    def more(self, scope: Scope) -> bool:
        """Return whether pages of ``scope`` are on their way into sessions, or shall come."""
        return self.count_of(scope) > 0 or self._bulk.goes_on(scope)

    def count_of(self, scope: Scope) -> int:
        """Return how many batches of ``scope`` have begun and are not applied yet."""
        flow = self._flows.get(scope.number)
        return 0 if flow is None else len(flow.batches)

    def under_way(self, scope: Scope) -> list[int]:
        """Return the pages of ``scope`` whose batches have begun and are not applied yet."""
        flow = self._flows.get(scope.number)
        return [seq for batch in flow.batches for seq in batch.seqs] if flow is not None else []

    def builds_on(self, scope: Scope) -> int:
        """Return the page of ``scope`` whose chain the tasks under way were told of; -1 where there is none."""
        flow = self._flows.get(scope.number)
        begun = [batch for batch in flow.batches if batch.step > Step.EMBEDDING] if flow is not None else []
        return begun[0].before if begun else -1

    def begin(self, scope: Scope, seqs: list[int]) -> None:
        """Take the next pages of ``scope``; their tasks begin once all of them are embedded."""
        self._flows.setdefault(scope.number, ScopeFlow()).batches.append(Batch(tuple(seqs)))

    def advance(self, scope: Scope) -> None:
        """Do what can be done for ``scope`` now: its pages may have been embedded."""
        flow = self._flows.get(scope.number)
        if flow is None:
            return
        self._begin_what_can(scope, flow)
        while batch := flow.take_ready():
            self._apply(scope, batch)
            self._begin_what_can(scope, flow)
        if not flow.batches:
            self._flows.pop(scope.number, None)

    def _begin_what_can(self, scope: Scope, flow: ScopeFlow) -> None:
        while batches := self._next_for_tasks(scope, flow):
            self._begin_tasks(scope, flow, flow.join(batches))

    def _next_for_tasks(self, scope: Scope, flow: ScopeFlow) -> list[Batch]:
        """Return the batches whose tasks begin now, as one; none where there are none, or they wait for more."""
        found = list[Batch]()
        for batch in flow.next_for_tasks(partial(self._aside.settled, scope)):
            if found and not self._joins(scope, found, batch):
                return found
            found.append(batch)
            if batch.alone or not self._bulk.tokens or sum(map(self._tokens, found)) >= self._bulk.tokens:
                return found
        # What is online, and all before it, waits for nothing.
        waits = found and self._bulk.goes_on(scope) and found[0].seqs[0] > scope.latest_online
        return [] if waits else found

    def _joins(self, scope: Scope, batches: list[Batch], batch: Batch) -> bool:
        """Return whether ``batch`` may become one with ``batches``: it goes on where they end, and there is room."""
        seqs = self._state.pages.seqs_of(scope.number)
        last, first = np.searchsorted(seqs, [batches[-1].seqs[-1], batch.seqs[0]])
        if batch.alone or first != last + 1 or sum(len(one.seqs) for one in (*batches, batch)) > MOST_PAGES:
            return False
        return sum(map(self._tokens, (*batches, batch))) <= self._bulk.tokens

    def _tokens(self, batch: Batch) -> int:
        if batch.tokens is None:
            pages = map(task_page, self._reader.read_many(batch.seqs))
            batch.tokens = sum(self._bulk.cost(said, answered) for said, answered, _ in pages)
        return batch.tokens

    def forget(self, scope: Scope, seqs: set[int]) -> None:
        """Leave out ``seqs``; what is under way for ``scope`` may tell of forgotten pages, and is begun anew."""
        flow = self._flows.get(scope.number)
        if flow is None:
            return
        for batch in flow.restart(seqs):
            if batch.step == Step.READY:
                self._embedding.pool.release(batch.summary_rows)
        if not flow.batches:
            del self._flows[scope.number]

    def _begin_tasks(self, scope: Scope, flow: ScopeFlow, batch: Batch) -> None:
        batch.live = tuple(seq for seq in batch.seqs if seq not in scope.aside)
        if not batch.live:
            batch.step = Step.READY
            return
        batch.step = Step.TASKS
        # A session must not tell of pages that are in another: its words would outlive theirs.
        homeless = [index for index, seq in enumerate(batch.live) if scope.mid_term.session_of(seq) is None]
        batch.homeless = tuple(batch.live[index] for index in homeless)
        batch.before = self.before(scope, batch.live[0])
        vectors = self._embedding.pool.read([self._state.pages.row(seq) for seq in batch.live])
        pages = list(map(task_page, self._reader.read_many(batch.live)))
        batch.timestamps = tuple(pages[index][2] for index in homeless)
        payload = {
            "pages": pages,
            "vectors": vectors.tobytes(),
            "dimension": vectors.shape[1],
            "previous": self._previous(flow, batch.before),
            "homeless": homeless,
        }
        self._desk.submit(LLM, "batch", payload, partial(self._tasks_done, scope, batch))

    def before(self, scope: Scope, seq: int) -> int:
        """Return the page of ``scope`` before ``seq``, or -1 where there is none with a vector."""
        seqs = self._state.pages.seqs_of(scope.number)
        at = int(np.searchsorted(seqs, seq)) - 1
        before = int(seqs[at]) if at >= 0 else -1
        return before if before >= 0 and before not in scope.aside and self._state.pages.row(before) >= 0 else -1

    def _previous(self, flow: ScopeFlow, before: int) -> dict[str, Any] | None:
        """Return what the continuity task wants to know of the page ``before``."""
        if before < 0:
            return None
        page, overview = flow.overview or (-1, "")
        if page != before:
            overview = self._state.chains.overview(before)
        vector = self._embedding.pool.read([self._state.pages.row(before)])
        return {"page": task_page(self._reader.read(before)), "vector": vector.tobytes(), "overview": overview}

    def _current(self, scope: Scope, batch: Batch) -> ScopeFlow | None:
        """Return the flow that ``batch`` is in; None where it was split or begun anew meanwhile."""
        flow = self._flows.get(scope.number)
        return flow if flow is not None and batch in flow.batches else None

    def _tasks_done(self, scope: Scope, batch: Batch, outcome: Outcome) -> None:
        flow = self._current(scope, batch)
        if flow is None or outcome.fate == "down":
            return
        if outcome.fate == "done":
            batch.answer = outcome.result
            flow.overview = batch.live[-1], outcome.result["overviews"][-1]
            self._embed_summaries(scope, batch)
        else:
            self._task_failed(scope, flow, batch, outcome.error)
        self.advance(scope)

    def _task_failed(self, scope: Scope, flow: ScopeFlow, batch: Batch, reason: str) -> None:
        if len(batch.seqs) > 1:
            flow.split(batch)
            return
        self._aside.put(scope, batch.seqs[0], reason)
        batch.live, batch.step = (), Step.READY

    def _embed_summaries(self, scope: Scope, batch: Batch) -> None:
        if not batch.topics:
            batch.step = Step.READY
            return
        batch.step = Step.SUMMARIES
        texts = [topic["content"] for topic in batch.topics]
        answer = partial(self._summaries_done, scope, batch)
        self._embedding.send(scope.session_rows, texts, answer, ahead=True)

    def _summaries_done(self, scope: Scope, batch: Batch, rows: list[int], outcome: Outcome) -> None:
        if self._current(scope, batch) is None:
            self._embedding.pool.release(rows)
            return
        if outcome.fate == "down":
            return
        if outcome.fate != "done":
            logger.warning("summaries could not be embedded (%s); their pages' centroids stand in", outcome.error)
            for row, topic in zip(rows, batch.topics, strict=True):
                self._write_centroid(row, [batch.homeless[index] for index in topic["pages"]])
        batch.summary_rows, batch.step = rows, Step.READY
        self.advance(scope)

    def _write_centroid(self, row: int, seqs: list[int]) -> None:
        pool = self._embedding.pool
        centroid = pool.read([self._state.pages.row(seq) for seq in seqs]).astype(np.float32).mean(axis=0)
        centroid /= np.linalg.norm(centroid) or 1.0
        pool.write([row], centroid[None].astype(np.float16))

    def _apply(self, scope: Scope, batch: Batch) -> None:
        pool = self._embedding.pool
        outcome = decide(scope, batch, time.time(), pool)
        self._state.apply(scope, outcome)
        self.placed += sum(len(placed.seqs) for placed in outcome.placed)
        last = (batch.live or batch.seqs)[-1]
        chain = self._state.chains.chain_of(last)
        evicted, rows = self._state.evict(scope)
        if self._state.chains.chain_of(last) != chain:
            self.forget(scope, set())  # what is under way goes on with an overview that tells of pages cut off now
        founded = pool.read([placed.row for placed in outcome.placed if placed.founded])
        done = BatchDone(batch.seqs, outcome._replace(evicted=evicted), founded)
        self._derived.event(Event(scope.user_id, scope.assistant_id, done))
        pool.release(rows)
        self._applied(scope)


def task_page(record: bytes) -> list[str]:
    """Return what a task sees of a page: either side, and its timestamp."""
    return list(own_words(decode_record(record))[2:5])
