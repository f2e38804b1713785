"""Giving batches to the embedder and the LLM pool, and applying what comes back. Owned by the coordinator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from mos_pipeline.config import Config
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.flow import Batch, ScopeFlow, Step
from mos_pipeline.engine.frames import BatchFrame
from mos_pipeline.engine.holes import Holes
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.engine.placing import decide
from mos_pipeline.memory.scheduling import FairQueue
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode_record, embedded_text
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.store.reading import PageReader

__all__ = ["EMBEDDER", "LLM", "Processing"]

logger = logging.getLogger(__name__)

EMBEDDER = "embedder"
LLM = "llm"
# A writer that can't write must not make results pile up in memory: above this no new work is given out.
MAX_UNWRITTEN_BYTES = 32 << 20


class Processing:
    """The work in flight of all scopes."""

    def __init__(
        self,
        config: Config,
        state: MemoryState,
        reader: PageReader,
        persistence: Persistence,
        derived: Derived,
        desk: Desk,
        worked_off: Callable[[int], None],
    ) -> None:
        """``worked_off(bytes)`` is told of pages that have left the backlog."""
        self._config = config
        self._capacity = config.short_term.capacity
        self._state = state
        self._reader = reader
        self._persistence = persistence
        self._derived = derived
        self._desk = desk
        self._worked_off = worked_off
        self._flows: dict[int, ScopeFlow] = {}
        self._queue: FairQueue[int] = FairQueue()
        self._queued: set[int] = set()
        self._loose: set[int] = set()
        self._embedding: set[int] = set()
        self._holes = Holes(state.pages, self._capacity)
        self.texts_in_flight = 0
        self.draining = False
        self.ready = False
        self.pool: VectorPool | None = None

    @property
    def idle(self) -> bool:
        """Whether every page that should be worked on has been."""
        return not (self._queued or self._flows or self._embedding or (self.draining and self._loose))

    @property
    def saturated(self) -> bool:
        """Whether the embedder has as many texts as it may have; an answer of its own changes that."""
        return self.texts_in_flight >= self._config.embedding.in_flight_texts

    @property
    def batches(self) -> int:
        """Batches begun and not applied yet."""
        return sum(len(flow.batches) for flow in self._flows.values())

    def page_came(self, scope: Scope) -> None:
        """Note that ``scope`` has a new page."""
        self._loose.add(scope.number)
        self._enqueue(scope)

    def resume(self, scope: Scope, bare: list[int]) -> None:
        """Take up a restored scope; its pages ``bare`` have their places in sessions, but lost their vectors."""
        self._holes.restore(scope, bare)
        if self._has_loose(scope):
            self.page_came(scope)

    def drain(self) -> None:
        """From now on embed the pages of rings that are not full, too."""
        self.draining = True
        for number in list(self._loose):
            self._enqueue(self._state.scopes[number])

    def dispatch(self) -> bool:
        """Give out one batch if there is room for it; return whether there was one."""
        if not self.ready or not self._queued or self.saturated:
            return False
        if self._persistence.outstanding_bytes > MAX_UNWRITTEN_BYTES:
            return False
        number = self._queue.pop()
        self._queued.discard(number)
        self._give(self._state.scopes[number])
        return True

    def _waiting(self, scope: Scope) -> int:
        return len(self._state.pages.seqs_of(scope.number)) - scope.given

    def _enqueue(self, scope: Scope) -> None:
        wanted = self._holes.of(scope) or self._waiting(scope) >= self._capacity
        wanted = wanted or (self.draining and scope.number in self._loose)
        if wanted and scope.number not in self._queued:
            self._queued.add(scope.number)
            self._queue.push(scope.number, self._waiting(scope))

    def _give(self, scope: Scope) -> None:
        if self._holes.of(scope):
            seqs, as_batch = self._holes.take(scope)
            if as_batch:
                self._begin(scope, seqs)
        else:
            seqs = list(map(int, self._state.pages.seqs_of(scope.number)[scope.given : scope.given + self._capacity]))
            if len(seqs) == self._capacity:
                scope.given += self._capacity
                self._begin(scope, seqs)
        self._embed_missing(scope, seqs)
        if not self._has_loose(scope):
            self._loose.discard(scope.number)
        self._enqueue(scope)
        self._advance(scope)

    def _begin(self, scope: Scope, seqs: list[int]) -> None:
        self._flows.setdefault(scope.number, ScopeFlow()).batches.append(Batch(tuple(seqs)))

    def _has_loose(self, scope: Scope) -> bool:
        """Whether pages of ``scope`` are neither embedded nor on their way to be."""
        if self._holes.of(scope) or self._waiting(scope) >= self._capacity:
            return True
        tail = map(int, self._state.pages.seqs_of(scope.number)[scope.given :])
        return any(not self._settled(scope, seq) and seq not in self._embedding for seq in tail)

    def _embed_missing(self, scope: Scope, seqs: list[int]) -> None:
        missing = [seq for seq in seqs if not self._settled(scope, seq) and seq not in self._embedding]
        if missing:
            self._embedding.update(missing)
            self._embed(scope, missing)

    def _settled(self, scope: Scope, seq: int) -> bool:
        return self._state.pages.row(seq) >= 0 or seq in scope.aside

    def _pool(self) -> VectorPool:
        if self.pool is None:
            raise RuntimeError("work was given out before the embedder was ready")
        return self.pool

    def _embed(self, scope: Scope, seqs: list[int]) -> None:
        records = self._reader.read_many(seqs)
        texts = [embedded_text(*decode_record(record)[2:4]) for record in records]
        size = sum(map(len, records))
        rows = self._pool().allocate(scope.page_rows, len(seqs))
        alone = self._flows.get(scope.number, ScopeFlow()).batches
        self._send_texts(texts, rows, partial(self._embedded, scope, seqs, rows, size), ahead=len(alone) == 1)

    def _send_texts(
        self, texts: list[str], rows: Iterable[int], answer: Callable[[Outcome], None], *, ahead: bool
    ) -> None:
        self.texts_in_flight += len(texts)
        addresses = [list(self._pool().address(int(row))) for row in rows]

        def back(outcome: Outcome) -> None:
            self.texts_in_flight -= len(texts)
            answer(outcome)

        self._desk.submit(EMBEDDER, "ahead" if ahead else "embed", [texts, addresses], back, urgent=ahead)

    def _embedded(self, scope: Scope, seqs: list[int], rows: Any, size: int, outcome: Outcome) -> None:
        if outcome.fate == "done":
            numbers = np.array(seqs, np.int64)
            self._pool().commit(rows, numbers)
            for seq, row in zip(seqs, rows, strict=True):
                self._state.pages.set_row(seq, int(row))
            self._derived.vectors(numbers, self._pool().read(rows))
        else:
            self._pool().release(rows)
            if outcome.fate == "down":
                return  # stays in the backlog until the store is opened with an embedder that works
            if len(seqs) > 1:
                middle = len(seqs) // 2
                self._embed(scope, seqs[:middle])
                self._embed(scope, seqs[middle:])
                return
            self._set_aside(scope, seqs[0], f"embedding it failed: {outcome.error}")
        self._embedding.difference_update(seqs)
        self._worked_off(size)
        self._advance(scope)

    def _set_aside(self, scope: Scope, seq: int, reason: str) -> None:
        page_id = self._state.ids.id_of(seq, decode_record(self._reader.read(seq)).page_id)
        logger.error("page %s is set aside, kept and found by its words: %s", page_id, reason)
        scope.aside[seq] = reason
        self._derived.aside(seq, reason)

    def _advance(self, scope: Scope) -> None:
        flow = self._flows.get(scope.number)
        if flow is None:
            return
        while batch := flow.next_for_tasks(partial(self._settled, scope)):
            self._begin_tasks(scope, flow, batch)
        while batch_ready := flow.take_ready():
            self._apply(scope, batch_ready)
        if not flow.batches:
            del self._flows[scope.number]

    def _begin_tasks(self, scope: Scope, flow: ScopeFlow, batch: Batch) -> None:
        batch.live = tuple(seq for seq in batch.seqs if seq not in scope.aside)
        if not batch.live:
            batch.step = Step.READY
            return
        batch.step = Step.TASKS
        pages = [self._task_page(seq) for seq in batch.live]
        vectors = self._pool().read([self._state.pages.row(seq) for seq in batch.live])
        body = {"pages": pages, "vectors": vectors.tobytes(), "dimension": vectors.shape[1]}
        batch.before = self._before(scope, batch.live[0])
        previous = self._previous(flow, batch.before)
        for kind, payload in (("continuity", {**body, "previous": previous}), ("topics", body)):
            self._desk.submit(LLM, kind, payload, partial(self._task_done, scope, batch, kind))

    def _task_page(self, seq: int) -> list[str]:
        return list(decode_record(self._reader.read(seq))[2:5])

    def _before(self, scope: Scope, seq: int) -> int:
        """Return the page of ``scope`` before ``seq``, or -1 where there is none with a vector."""
        seqs = self._state.pages.seqs_of(scope.number)
        at = int(np.searchsorted(seqs, seq)) - 1
        before = int(seqs[at]) if at >= 0 else -1
        return before if before >= 0 and before not in scope.aside and self._state.pages.row(before) >= 0 else -1

    def _previous(self, flow: ScopeFlow, before: int) -> dict[str, Any] | None:
        """Return what the continuity task wants to know of the page ``before``."""
        if before < 0:
            return None
        overview = flow.overview if flow.overview is not None else self._state.chains.overview(before)
        vector = self._pool().read([self._state.pages.row(before)])
        return {"page": self._task_page(before), "vector": vector.tobytes(), "overview": overview}

    def _task_done(self, scope: Scope, batch: Batch, kind: str, outcome: Outcome) -> None:
        flow = self._flows.get(scope.number)
        if flow is None or batch not in flow.batches or outcome.fate == "down":
            return
        if outcome.fate != "done":
            self._task_failed(scope, flow, batch, f"{kind} failed: {outcome.error}")
        elif kind == "continuity":
            batch.continuity = outcome.result
        else:
            batch.topics = outcome.result["topics"]
        if batch.continuity is not None and batch.topics is not None:
            flow.overview = batch.continuity["overviews"][-1]
            self._embed_summaries(scope, batch)
        self._advance(scope)

    def _task_failed(self, scope: Scope, flow: ScopeFlow, batch: Batch, reason: str) -> None:
        if len(batch.seqs) > 1:
            flow.split(batch)
            return
        self._set_aside(scope, batch.seqs[0], reason)
        batch.live, batch.step = (), Step.READY

    def _embed_summaries(self, scope: Scope, batch: Batch) -> None:
        batch.step = Step.SUMMARIES
        texts = [topic["content"] for topic in batch.topics or []]
        rows = self._pool().allocate(scope.session_rows, len(texts))
        batch.summary_rows = list(map(int, rows))
        self._send_texts(texts, batch.summary_rows, partial(self._summaries_done, scope, batch), ahead=True)

    def _summaries_done(self, scope: Scope, batch: Batch, outcome: Outcome) -> None:
        if outcome.fate == "down":
            return
        if outcome.fate != "done":
            logger.warning("summaries could not be embedded (%s); their pages' centroids stand in", outcome.error)
            for row, topic in zip(batch.summary_rows, batch.topics or [], strict=True):
                vectors = self._pool().read([self._state.pages.row(batch.live[i]) for i in topic["pages"]])
                centroid = vectors.astype(np.float32).mean(axis=0)
                centroid /= np.linalg.norm(centroid) or 1.0
                self._pool().write([row], centroid[None].astype(np.float16))
        batch.step = Step.READY
        self._advance(scope)

    def _apply(self, scope: Scope, batch: Batch) -> None:
        first = self._task_page(batch.live[0])[2] if batch.live else ""
        outcome = decide(scope, batch, first, self._pool())
        self._state.apply(scope, outcome)
        founded = [placed.row for placed in outcome.placed if placed.founded]
        self._derived.batch(
            BatchFrame(scope.user_id, scope.assistant_id, batch.seqs, outcome, self._pool().read(founded))
        )
