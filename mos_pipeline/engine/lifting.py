"""Vectors that the store's model has still to make of what is remembered already, in the background.

They lack where another model made those that were stored, where a damaged frame held them, or where memory was taken
over without. Owned by the coordinator. Of each scope summaries and facts come first, with the pages that its next
batches go on from; until they have their vectors nothing of the scope is worked on, since whatever is new is compared
with them. Then come its other pages, the newest first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.aside import Aside
from mos_pipeline.engine.bearers import Bearer, current, groups, id_of, text_of
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.embedding import Embedding
from mos_pipeline.engine.events import Event, Lifted
from mos_pipeline.memory.scheduling import FairQueue
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.runtime.supervisor import Outcome

__all__ = ["Lifting", "unlifted"]

logger = logging.getLogger(__name__)

TEXTS_AT_ONCE = 32

Tagged = Sequence[tuple[Bearer, int]]


class Lifting:
    """What has no vector yet, scope by scope in turns.

    Attributes:
        stale: which of the pages that were restored had vectors by another model, bool (n,).
        given_up: how many summaries and facts could not be embedded.
    """

    def __init__(
        self,
        state: MemoryState,
        derived: Derived,
        embedding: Embedding,
        aside: Aside,
        embed_pages: Callable[[Scope, list[int]], None],
        lifted: Callable[[Scope], None],
    ) -> None:
        """Have pages embedded by ``embed_pages``; ``lifted(scope)`` is told when the scope may be worked on."""
        self._state = state
        self._derived = derived
        self._embedding = embedding
        self._aside = aside
        self._embed_pages = embed_pages
        self._lifted = lifted
        self._bare: dict[int, list[int]] = {}
        self._first: dict[int, list[int]] = {}  # by scope that is lifted first, the pages that belong to that
        self._parts: dict[int, int] = {}  # by scope whose summaries and facts were given out, how many parts are left
        self._queue: FairQueue[int] = FairQueue()
        self._hurried: dict[int, None] = {}  # scopes in the order in which somebody came to wait for them
        self.stale: npt.NDArray[np.bool_] = np.zeros(0, bool)
        self.given_up = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is left to give out, nor to be waited for before a scope is worked on."""
        return not self._bare and not self._first

    @property
    def waiting(self) -> bool:
        """Whether there is something to give out."""
        return bool(self._queue) or bool(self._hurried)

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._hurried)

    def had_vector(self, seq: int) -> bool:
        """Return whether a page had a vector by another model: it has had its fact, then, and is no backlog."""
        return seq < len(self.stale) and bool(self.stale[seq])

    def restore(self, scope: Scope, bare: list[int]) -> None:
        """Take up a scope as it was read; its pages ``bare`` have no vector, and summaries and facts may have none."""
        before = self._before_batches(scope)
        if before or any(bearer.row < 0 for _, bearers in groups(scope) for bearer, _ in bearers):
            self._first[scope.number] = before
            scope.lifting = True
        self.lack(scope, bare)

    def lack(self, scope: Scope, bare: list[int]) -> None:
        """Note pages of a scope that have no vector, ascending."""
        if bare:
            self._bare[scope.number] = sorted({*self._bare.get(scope.number, ()), *bare})
        self._enqueue(scope)

    def _before_batches(self, scope: Scope) -> list[int]:
        """Return the pages without a vector that the next batches go on from: continuity is told by their vectors."""
        seqs = self._state.pages.seqs_of(scope.number)
        starts = {scope.given, *np.searchsorted(seqs, scope.gaps).tolist()}
        before = {int(seqs[at - 1]) for at in starts if 0 < at <= len(seqs)} - set(scope.gaps)
        return sorted(seq for seq in before if not self._aside.settled(scope, seq))

    def _enqueue(self, scope: Scope) -> None:
        left = len(self._bare.get(scope.number, ()))
        if (left or self._may_begin(scope)) and scope.number not in self._queue:
            self._queue.push(scope.number, left)

    def hurry(self, scope: Scope) -> None:
        """Give out next what a scope waits for: it has something to be worked on."""
        if self._may_begin(scope):
            self._hurried[scope.number] = None

    def _may_begin(self, scope: Scope) -> bool:
        return scope.number in self._first and scope.number not in self._parts

    def forget(self, scope: Scope, seqs: set[int]) -> None:
        """Leave out pages that belong to nobody any more."""
        for waiting in (self._bare, self._first):
            if scope.number in waiting:
                waiting[scope.number] = [seq for seq in waiting[scope.number] if seq not in seqs]
        if not self._bare.get(scope.number, True):
            del self._bare[scope.number]

    def give(self) -> None:
        """Give out what is next: what a scope waits for, or some of its pages."""
        if self._hurried:
            self._begin(self._state.scopes[next(iter(self._hurried))])
            return
        scope = self._state.scopes[self._queue.pop()]
        if self._may_begin(scope):
            self._begin(scope)
        elif bare := self._bare.pop(scope.number, []):
            if left := bare[:-TEXTS_AT_ONCE]:
                self._bare[scope.number] = left
            self._embed_pages(scope, bare[-TEXTS_AT_ONCE:])
        self._enqueue(scope)

    def _begin(self, scope: Scope) -> None:
        """Give out summaries, facts, and the pages before the next batches."""
        self._hurried.pop(scope.number, None)
        self._parts[scope.number] = 0
        for kind, (owner, bearers) in enumerate(groups(scope)):
            lacking = [(bearer, tag) for bearer, tag in bearers if bearer.row < 0]
            for start in range(0, len(lacking), TEXTS_AT_ONCE):
                self._send(scope, kind, owner, lacking[start : start + TEXTS_AT_ONCE])
        if before := self._first[scope.number]:
            self._embed_pages(scope, before)
        self.look(scope)

    def _send(self, scope: Scope, kind: int, owner: int, bearers: Tagged) -> None:
        self._parts[scope.number] += 1
        answer = partial(self._answered, scope, kind, owner, bearers)
        self._embedding.send(owner, [text_of(bearer) for bearer, _ in bearers], answer, ahead=True)

    def _answered(
        self, scope: Scope, kind: int, owner: int, bearers: Tagged, rows: list[int], outcome: Outcome
    ) -> None:
        if outcome.fate == "down":
            self._embedding.pool.release(rows)
            return
        self._parts[scope.number] -= 1
        if outcome.fate == "done":
            self._enter(scope, kind, bearers, rows)
        else:
            self._embedding.pool.release(rows)
            if len(bearers) > 1:
                middle = len(bearers) // 2
                self._send(scope, kind, owner, bearers[:middle])
                self._send(scope, kind, owner, bearers[middle:])
            else:
                self.given_up += 1
                text = "a summary or fact of user %r has no vector until the next opening: %s"
                logger.warning(text, scope.user_id, outcome.error)
        self.look(scope)

    def _enter(self, scope: Scope, kind: int, bearers: Tagged, rows: list[int]) -> None:
        """Make vectors searchable, but for those of what was dropped meanwhile."""
        pool, found = self._embedding.pool, list[tuple[Bearer, int, int]]()
        for (bearer, tag), row in zip(bearers, rows, strict=True):
            present = current(scope, kind, id_of(bearer))
            if present is not None and present[0] is bearer and bearer.row < 0:
                bearer.row = row
                found.append((bearer, tag, row))
            else:
                pool.release([row])
        if found:
            kept = [row for _, _, row in found]
            pool.commit(kept, np.array([tag for _, tag, _ in found], np.int64))
            lifted = Lifted(kind, [id_of(bearer) for bearer, _, _ in found], pool.read(kept))
            self._derived.event(Event(scope.user_id, scope.assistant_id, lifted))

    def look(self, scope: Scope) -> None:
        """Let a scope be worked on, if what comes first has been lifted."""
        before = self._first.get(scope.number)
        if before is None or self._parts.get(scope.number) != 0:
            return
        if all(self._aside.settled(scope, seq) for seq in before):
            del self._first[scope.number], self._parts[scope.number]
            scope.lifting = False
            self._lifted(scope)


def unlifted(state: MemoryState, scopes: Iterable[Scope], stale: npt.NDArray[np.bool_]) -> int:
    """Return how many vectors of another model are still to be made again.

    Args:
        state: all that is remembered.
        scopes: those whose summaries and facts may lack theirs.
        stale: which pages had vectors by another model, bool (n,).
    """
    if not stale.any():
        return 0
    aside = sum(bool(stale[seq]) for scope in state.scopes for seq in scope.aside if seq < len(stale))
    lacking = sum(bearer.row < 0 for scope in scopes for _, bearers in groups(scope) for bearer, _ in bearers)
    return state.pages.count_bare(stale) - aside + lacking
