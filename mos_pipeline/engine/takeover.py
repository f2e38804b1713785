"""Memory that another library made is taken over: vectors are looked at and made, then all is entered and written.

Owned by the coordinator. The scope is held meanwhile: nobody else works on its pages. It is written as one checkpoint,
by which everything that knows a store's own memory knows this, too: it is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mos_pipeline.engine.checkpoints import encode_checkpoints, take
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.engine.processing import Processing
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.engine.takeover_entry import TakenItem, TakeoverEntry, TakingOverDone
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.takeover import TakenPage, TakenSession, Takeover, Vector
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.reading import PageReader
from mos_pipeline.store.segments import FrameAddress

__all__ = ["TakingOver"]

SAME_COSINE = 0.95  # of a text's vector there and here, from which on both were made by one model
TEXTS_AT_ONCE = 32


@dataclass(slots=True, eq=False)
class _Work:
    """A takeover under way.

    Attributes:
        reuse: whether the vectors that came along are this model's.
        waits_for: texts at the embedder.
        vectors: of texts that were embedded here.
    """

    scope: Scope
    memory: Takeover
    done: TakingOverDone
    reuse: bool = False
    waits_for: int = 0
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
        self._derived = derived
        self._persistence = persistence
        self._embedding = embedding
        self._processing = processing
        self._promotion = promotion
        self._entry = TakeoverEntry(state, reader, derived, embedding, worked_off)
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

    def _probe(self, work: _Work) -> None:
        """Embed some texts whose vectors came along, the first and last of each kind: are they this model's?"""
        probes = list[tuple[str, Vector]]()
        for items in (work.memory.pages, work.memory.sessions, work.memory.facts):
            known = [(_text(item), vector) for item in items if (vector := self._fitting(item)) is not None]
            probes += [*known[:1], *known[1:][-1:]]
        self._embed(work, list(dict(probes)), partial(self._probed, work, probes))

    def _fitting(self, item: TakenItem) -> Vector | None:
        """Return the vector that came along, if it is as long as this model's."""
        fits = item.vector is not None and len(item.vector) == self._derived.dimension
        return item.vector if fits else None

    def _probed(self, work: _Work, probes: Sequence[tuple[str, Vector]]) -> None:
        found = [(work.vectors.get(text), vector) for text, vector in probes]
        work.reuse = all(here is not None and _cosine(here, there) >= SAME_COSINE for here, there in found)
        items: tuple[TakenItem, ...] = (*work.memory.sessions, *work.memory.facts)
        texts = dict.fromkeys(_text(item) for item in items if self._vector_of(work, item) is None)
        self._embed(work, list(texts), partial(self._enter, work))

    def _vector_of(self, work: _Work, item: TakenItem) -> Vector | None:
        vector = self._fitting(item) if work.reuse else None
        if vector is not None or isinstance(item, TakenPage):  # pages without one are embedded like all others
            return vector
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
            work.done.error = f"the embedder is down: {outcome.error}"
            work.done.event.set()
            return
        if outcome.fate != "done" and len(texts) > 1:
            middle = len(texts) // 2
            self._send(work, texts[:middle], then)
            self._send(work, texts[middle:], then)
            return
        if outcome.fate == "done":
            work.vectors.update(zip(texts, found, strict=True))
        work.waits_for -= len(texts)
        if not work.waits_for:
            then()

    def _enter(self, work: _Work) -> None:
        scope = work.scope
        batched = self._entry.enter(scope, work.memory, partial(self._vector_of, work), work.done)
        self._write(work, batched)
        bare = [seq for seq in batched if self._state.pages.row(seq) < 0 and seq not in scope.aside]
        work.done.bare = len(bare)
        self._processing.lack_vectors(scope, bare)
        self.release(scope)

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


def _text(item: TakenItem) -> str:
    return item.summary if isinstance(item, TakenSession) else item.text


def _cosine(one: Vector, other: Vector) -> float:
    return float(one.astype(np.float32) @ other.astype(np.float32))
