"""Batches on their way into mid-term memory: tasks, summaries, and what is applied. Owned by the coordinator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
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
from mos_pipeline.engine.task_pages import TaskPages, task_page
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import PageRecord
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.reading import PageReader

__all__ = ["LLM", "Batches"]

logger = logging.getLogger(__name__)

LLM = "llm"
UNIT_CHARS = 1 << 18  # of pages: a unit with so many is given no further batch
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
        self._ready: dict[int, Scope] = {}  # those for which something may be done
        self._pages = TaskPages(reader)
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

    def remember(self, seq: int, page: PageRecord) -> None:
        """Note what was read of a page, its own words, to be embedded."""
        self._pages.remember(seq, page)

    def advance(self, scope: Scope) -> None:
        """Do the next that can be done for ``scope``, and the rest soon: begin tasks, or apply one batch."""
        flow = self._flows.get(scope.number)
        if flow is None:
            return
        if not self._begin_what_can(scope, flow):
            batch = flow.take_ready()
            if batch is None:
                return
            self._apply(scope, batch)
        if flow.batches:
            self._ready[scope.number] = scope
        else:
            self._flows.pop(scope.number, None)

    def advance_soon(self, scope: Scope) -> None:
        """Have ``go_on`` do what can be done for ``scope``: the call at hand has taken its time."""
        if scope.number in self._flows:
            self._ready[scope.number] = scope

    @property
    def goes_on(self) -> bool:
        """Whether ``go_on`` may have something to do."""
        return bool(self._ready)

    def go_on(self, until: float) -> None:
        """Go on with scopes that wait for it.

        One step in any case, and further ones while ``time.perf_counter()`` is below ``until``.
        """
        while self._ready:
            self.advance(self._ready.pop(next(iter(self._ready))))
            if time.perf_counter() >= until:
                return

    def _begin_what_can(self, scope: Scope, flow: ScopeFlow) -> bool:
        """Begin the tasks of batches that may begin; return whether there were any."""
        begun = False
        while batches := self._next_for_tasks(scope, flow):
            self._begin_tasks(scope, flow, [flow.join(batches)] if self._bulk.tokens else batches)
            begun = True
        return begun

    def _next_for_tasks(self, scope: Scope, flow: ScopeFlow) -> list[Batch]:
        """Return the batches whose tasks begin now, in one unit; none where there are none, or they wait for more."""
        found = list[Batch]()
        for batch in flow.next_for_tasks(partial(self._aside.settled, scope)):
            if found and not self._joins(scope, found, batch):
                return found
            found.append(batch)
            if batch.alone or self._are_enough(found):
                return found
        # What is online, and all before it, waits for nothing.
        waits = found and self._bulk.goes_on(scope) and found[0].seqs[0] > scope.latest_online
        return [] if waits else found

    def _are_enough(self, batches: Sequence[Batch]) -> bool:
        if self._bulk.tokens:
            return sum(map(self._tokens, batches)) >= self._bulk.tokens
        return len(batches) >= self._bulk.together

    def _joins(self, scope: Scope, batches: list[Batch], batch: Batch) -> bool:
        """Return whether ``batch`` may go with ``batches``: where they become one, it goes on where they end."""
        if not self._bulk.tokens:
            return not batch.alone
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
        self._pages.forget(seqs)
        flow = self._flows.get(scope.number)
        if flow is None:
            return
        for batch in flow.restart(seqs):
            if batch.step == Step.READY:
                self._embedding.pool.release(batch.summary_rows)
        if not flow.batches:
            del self._flows[scope.number]

    def _begin_tasks(self, scope: Scope, flow: ScopeFlow, batches: Sequence[Batch]) -> None:
        """Give out the tasks of neighbouring batches as one unit; of long pages, those of the first of them."""
        begun, asked, chars = list[Batch](), list[dict[str, Any]](), 0
        for batch in batches:
            if chars > UNIT_CHARS:
                break
            batch.live = tuple(seq for seq in batch.seqs if seq not in scope.aside)
            if not batch.live:
                batch.step = Step.READY
                continue
            batch.step = Step.TASKS
            asked.append(self._asked(scope, flow, batch, begun[-1].live[-1] if begun else -1))
            begun.append(batch)
            chars += sum(len(text) for page in asked[-1]["pages"] for text in page)
        if begun:
            kind, payload = ("batch", asked[0]) if len(asked) == 1 else ("batches", asked)
            self._desk.submit(LLM, kind, payload, partial(self._tasks_done, scope, begun))

    def _asked(self, scope: Scope, flow: ScopeFlow, batch: Batch, told: int) -> dict[str, Any]:
        """Return what the tasks want to know of ``batch``; ``told`` is the page that they are told of before it."""
        # A session must not tell of pages that are in another: its words would outlive theirs.
        homeless = [index for index, seq in enumerate(batch.live) if scope.mid_term.session_of(seq) is None]
        batch.homeless = tuple(batch.live[index] for index in homeless)
        batch.before = self.before(scope, batch.live[0])
        vectors = self._embedding.pool.read([self._state.pages.row(seq) for seq in batch.live])
        pages = self._pages.take(batch.live)
        batch.timestamps = tuple(pages[index][2] for index in homeless)
        return {
            "pages": pages,
            "vectors": vectors.tobytes(),
            "dimension": vectors.shape[1],
            "previous": True if batch.before == told >= 0 else self._previous(flow, batch.before),
            "homeless": homeless,
        }

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

    def _current(self, scope: Scope, batches: Sequence[Batch]) -> ScopeFlow | None:
        """Return the flow that ``batches`` are in; None where they were split or begun anew meanwhile."""
        flow = self._flows.get(scope.number)
        return flow if flow is not None and all(batch in flow.batches for batch in batches) else None

    def _tasks_done(self, scope: Scope, batches: list[Batch], outcome: Outcome) -> None:
        flow = self._current(scope, batches)
        if flow is None or outcome.fate == "down":
            return
        if outcome.fate == "done":
            results = outcome.result if len(batches) > 1 else [outcome.result]
            for batch, result in zip(batches, results, strict=True):
                batch.answer = result
            flow.overview = batches[-1].live[-1], results[-1]["overviews"][-1]
            self._embed_summaries(scope, batches)
        else:
            self._tasks_failed(scope, flow, batches, outcome.error)
        self.advance_soon(scope)

    def _tasks_failed(self, scope: Scope, flow: ScopeFlow, batches: list[Batch], reason: str) -> None:
        if len(batches) > 1:
            for batch in batches:
                batch.step, batch.alone = Step.EMBEDDING, True
        elif len(batches[0].seqs) > 1:
            flow.split(batches[0])
        else:
            self._aside.put(scope, batches[0].seqs[0], reason)
            batches[0].live, batches[0].step = (), Step.READY

    def _embed_summaries(self, scope: Scope, batches: Sequence[Batch]) -> None:
        """Have the summaries of ``batches`` embedded, as one unit."""
        for batch in batches:
            batch.step = Step.SUMMARIES if batch.topics else Step.READY
        told = [batch for batch in batches if batch.topics]
        if told:
            texts = [topic["content"] for batch in told for topic in batch.topics]
            self._embedding.send(scope.session_rows, texts, partial(self._summaries_done, scope, told), ahead=True)

    def _summaries_done(self, scope: Scope, batches: Sequence[Batch], rows: list[int], outcome: Outcome) -> None:
        if self._current(scope, batches) is None:
            self._embedding.pool.release(rows)
            return
        if outcome.fate == "down":
            return
        if outcome.fate != "done" and len(batches) > 1:
            self._embedding.pool.release(rows)
            for batch in batches:
                self._embed_summaries(scope, [batch])
            return
        for batch in batches:
            batch.summary_rows, rows = rows[: len(batch.topics)], rows[len(batch.topics) :]
            if outcome.fate != "done":
                self._put_centroids(batch, outcome.error)
            batch.step = Step.READY
        self.advance_soon(scope)

    def _put_centroids(self, batch: Batch, reason: str) -> None:
        logger.warning("summaries could not be embedded (%s); their pages' centroids stand in", reason)
        for row, topic in zip(batch.summary_rows, batch.topics, strict=True):
            self._write_centroid(row, [batch.homeless[index] for index in topic["pages"]])

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
