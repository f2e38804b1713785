"""Mid- and long-term memory told again from a store's frames: events in their order, and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.bearers import current, give_vectors, groups
from mos_pipeline.engine.checkpoints import Checkpoint, decode_checkpoints, encode_checkpoints, enter, take
from mos_pipeline.engine.events import BatchDone, Event, Forgotten, Lifted, Promoted, Repaid, Visited
from mos_pipeline.engine.promotion import enter_promotion, show_facts
from mos_pipeline.memory.outcomes import BatchOutcome, BatchRepaid, Placed, PromotionRepaid, Told
from mos_pipeline.memory.pages import LOST
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.runtime.vector_pool import VectorPool

__all__ = ["Retelling"]


class Retelling:
    """Enters events as they were entered when they were new.

    A page that was forgotten later is in its session, as it was, until the event that took it out is told.

    Attributes:
        batched: for each page, bool (n,), whether a batch with it was applied and is in force.
    """

    def __init__(self, state: MemoryState, pages: int, pool: VectorPool) -> None:
        """Enter what belongs to the first ``pages`` pages."""
        self._state = state
        self._pool = pool
        self.batched = np.zeros(pages, bool)
        self._untold: dict[int, int] = {}  # forgotten pages that memory may still tell of, and their scopes' numbers
        self._ahead: list[tuple[bytes, dict[int, int]]] = []  # a scope's memory before ``forget_ahead``, and its untold

    @property
    def tells_of_forgotten(self) -> bool:
        """Whether memory may tell of a page that was forgotten."""
        return bool(self._untold)

    def grow(self, pages: int) -> None:
        """Enter what belongs to the first ``pages`` pages from now on."""
        self.batched = np.concatenate([self.batched, np.zeros(pages - len(self.batched), bool)])

    def forgotten(self, scope: Scope, seqs: Iterable[int]) -> None:
        """Note that pages are forgotten, of which memory may tell until the event that takes them out is told."""
        self._untold |= dict.fromkeys(seqs, scope.number)

    def events(self, events: Iterable[Event]) -> None:
        """Enter events, in their order."""
        founded: dict[int, list[tuple[int, npt.NDArray[np.float16]]]] = {}
        for event in events:
            scope = self._state.scope(event.user_id, event.assistant_id)
            match event.what:
                case BatchDone():
                    founded.setdefault(scope.number, []).extend(self._batch(scope, event.what))
                case Promoted():
                    self._promotion(scope, event.what)
                case Repaid():
                    founded.setdefault(scope.number, []).extend(self._repaid(scope, event.what))
                case Forgotten(seqs):
                    self._forget(scope, seqs)
                case Visited(sessions):
                    for counts in sessions:
                        scope.mid_term.set_visits(*counts)
                case Lifted():
                    self._enter_summaries(scope, founded.pop(scope.number, []))  # they may be among them
                    self._lift(scope, event.what)
        for number, summaries in founded.items():
            self._enter_summaries(self._state.scopes[number], summaries)

    def checkpoints(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Put scopes' memory in place of what was told of them before."""
        for checkpoint in checkpoints:
            scope = self._state.scope(checkpoint.user_id, checkpoint.assistant_id)
            self._untold = {seq: number for seq, number in self._untold.items() if number != scope.number}
            mine = self._state.pages.seqs_of(scope.number)
            self.batched[mine[mine < len(self.batched)]] = False
            enter(checkpoint, self._state, scope, self._pool)
            self._tells_of(scope, [seq for seq in checkpoint.batched if self._known(seq)])
            # A page whose batch is to be made again is not among them, and may be told of all the same.
            told = [seq for seq in checkpoint.pages_told_of() if self._known(seq)]
            self._untold |= {seq: scope.number for seq in told if not self._state.pages.is_kept(seq)}
            for seq in checkpoint.batched:
                if not self._known(seq):
                    scope.mid_term.remove_page(seq)

    def forget_the_rest(self) -> list[Event]:
        """Forget what was forgotten at last, and then everything was killed before that was written.

        Returns:
            What has to be written now: what comes after it is told of a memory without these pages.
        """
        by_scope: dict[int, list[int]] = {}
        for seq, number in self._untold.items():
            by_scope.setdefault(number, []).append(seq)
        scopes = self._state.scopes
        for number, seqs in by_scope.items():
            self._forget(scopes[number], seqs)
        return [Event(scopes[at].user_id, scopes[at].assistant_id, Forgotten(seqs)) for at, seqs in by_scope.items()]

    def forget_ahead(self) -> None:
        """Forget what is forgotten already, though what happened before that may still have to be told.

        ``take_back`` must come before anything more is told.
        """
        for number in sorted(set(self._untold.values())):
            untold = {seq: other for seq, other in self._untold.items() if other == number}
            self._ahead.append((self._checkpoint(self._state.scopes[number], untold), untold))
        self.forget_the_rest()

    def _checkpoint(self, scope: Scope, untold: Iterable[int]) -> bytes:
        """Return the scope's memory in bytes: plain lists may be shared with what changes."""
        mine = np.union1d(self._state.pages.seqs_of(scope.number), np.fromiter(untold, np.int64))
        taken = take(self._state, scope, mine[self.batched[mine]].tolist(), self._pool.read)
        return encode_checkpoints([taken], taken.vectors.shape[1])

    def take_back(self) -> None:
        """Put memory back as it was before ``forget_ahead``."""
        ahead, self._ahead = self._ahead, []
        for checkpoint, untold in ahead:
            self.checkpoints(decode_checkpoints(checkpoint))
            self._untold |= untold

    def _batch(self, scope: Scope, done: BatchDone) -> list[tuple[int, npt.NDArray[np.float16]]]:
        """Enter a batch; return the ids of the sessions it founded, with their summaries' vectors."""
        seqs = [seq for seq in done.seqs if self._known(seq)]
        if not seqs or self.batched[seqs].any():  # all lost, or written twice
            return []
        if not _joins_known(scope, done.outcome.placed):
            return []  # the session it joined was lost with a damaged frame: its pages are placed again
        self._tells_of(scope, seqs)
        self._pool.release(self._state.apply(scope, self._without_lost(done.outcome)))
        ids = [entry.session_id for entry in done.outcome.placed if entry.founded]
        return list(zip(ids, done.vectors, strict=True)) if len(done.vectors) else []

    def _enter_summaries(self, scope: Scope, summaries: list[tuple[int, npt.NDArray[np.float16]]]) -> None:
        """Fill in the vectors of founded sessions that are still there."""
        present = {}
        for session_id, vector in summaries:
            session = scope.mid_term.get(session_id)
            if session is not None and session.row < 0:
                present[session_id] = vector
        if present:
            rows = self._pool.allocate(scope.session_rows, len(present))
            self._pool.write(rows, np.array(list(present.values())))
            self._pool.commit(rows, np.array(list(present), np.int64))
            scope.mid_term.set_rows(dict(zip(present, rows.tolist(), strict=True)))

    def _repaid(self, scope: Scope, repaid: Repaid) -> list[tuple[int, npt.NDArray[np.float16]]]:
        if isinstance(repaid.outcome, BatchRepaid):
            return self._batch_repaid(scope, repaid.outcome, repaid.vectors)
        self._promotion_repaid(scope, repaid.outcome, repaid.vectors)
        return []

    def _batch_repaid(
        self, scope: Scope, repaid: BatchRepaid, vectors: npt.NDArray[np.float16]
    ) -> list[tuple[int, npt.NDArray[np.float16]]]:
        """Enter it as ``_batch`` does a batch, unless that is not owed here: written twice, or to be made again."""
        if not (scope.owed.owes("continuity", repaid.continuity) and scope.owed.owes("topics", repaid.topics)):
            return []
        if not _joins_known(scope, repaid.placed):
            return []
        self._pool.release(self._state.repay_batch(scope, repaid))
        ids = [entry.session_id for entry in repaid.placed if entry.founded]
        return list(zip(ids, vectors, strict=True)) if len(vectors) else []

    def _promotion_repaid(self, scope: Scope, repaid: PromotionRepaid, vectors: npt.NDArray[np.float16]) -> None:
        if not all(scope.owed.owes(task, repaid.seqs) for task in repaid.tasks):
            return
        repaid = repaid._replace(told=self._with_rows(scope, repaid.told, vectors))
        self._pool.release(self._state.repay_promotion(scope, repaid))
        show_facts(scope, repaid.told, self._pool)

    def _lift(self, scope: Scope, lifted: Lifted) -> None:
        """Give vectors to what is still there, and has none."""
        owner = [group.owner for group in groups(scope)][lifted.kind]
        found = [
            (*bearer, vector)
            for bearer_id, vector in zip(lifted.ids, lifted.vectors, strict=len(lifted.vectors) > 0)
            if (bearer := current(scope, lifted.kind, bearer_id)) is not None and bearer[0].row < 0
        ]
        give_vectors(self._pool, owner, found)

    def _promotion(self, scope: Scope, promoted: Promoted) -> None:
        outcome = promoted.outcome
        told = self._with_rows(scope, outcome.told, promoted.vectors)
        pages = [seq for entry in told for seq in entry.seqs if self._known(seq)]  # which may be in no batch
        self._untold |= {seq: scope.number for seq in pages if not self._state.pages.is_kept(seq)}
        known = list(filter(self._known, outcome.seqs))
        enter_promotion(self._state, scope, outcome._replace(seqs=known, told=told), self._pool)

    def _with_rows(self, scope: Scope, told: Sequence[Told], vectors: npt.NDArray[np.float16]) -> list[Told]:
        """Return facts with rows that hold the vectors of the new ones; with none where there are no vectors."""
        found, left = list[Told](), iter(vectors)
        for fact in told:
            row = -1
            if fact.new and len(vectors):
                (row,) = self._pool.allocate(scope.fact_rows(of_user=fact.of_user), 1).tolist()
                self._pool.write([row], next(left)[None])
            found.append(fact._replace(row=row))
        return found

    def _tells_of(self, scope: Scope, seqs: Sequence[int]) -> None:
        """Note that memory tells of pages."""
        self.batched[list(seqs)] = True
        self._untold |= {seq: scope.number for seq in seqs if not self._state.pages.is_kept(seq)}

    def _forget(self, scope: Scope, seqs: Sequence[int]) -> None:
        for seq in seqs:
            self._untold.pop(seq, None)
        forgotten = self._state.forget(scope, seqs)
        self._pool.release(forgotten.rows)
        self.batched[[seq for seq in forgotten.redo if seq < len(self.batched)]] = False

    def _known(self, seq: int) -> bool:
        return 0 <= seq < len(self.batched) and self._state.pages.scope(seq) != LOST

    def _without_lost(self, outcome: BatchOutcome) -> BatchOutcome:
        if not self._state.pages.count_of(LOST):
            return outcome
        links = [
            (seq, before if self._known(before) else -1)
            for seq, before in zip(outcome.seqs, outcome.links, strict=True)
            if self._known(seq)
        ]
        return outcome._replace(
            seqs=[seq for seq, _ in links],
            links=[before for _, before in links],
            overviews=[[seq, text] for seq, text in outcome.overviews if self._known(seq)],
            placed=[entry._replace(seqs=list(filter(self._known, entry.seqs))) for entry in outcome.placed],
        )


def _joins_known(scope: Scope, placed: list[Placed]) -> bool:
    """Whether every session that pages are placed in is founded here, or was before."""
    founded = set[int]()
    for entry in placed:
        if entry.founded:
            founded.add(entry.session_id)
        elif entry.session_id not in founded and scope.mid_term.get(entry.session_id) is None:
            return False
    return True
