"""The way of one user's batches, in order: embedded, told apart by the tasks, summaries embedded, applied.

Batches of one scope are embedded in any order and even at the same time, but their tasks begin one after the other
(continuity needs the page before) and they are applied in order. Where calls are made for many pages at once, several
become one before their tasks begin; where none are made, several may cross over to a worker as one unit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

__all__ = ["Batch", "ScopeFlow", "Step"]


class Step(IntEnum):
    """How far a batch has come."""

    EMBEDDING = 0
    TASKS = 1
    SUMMARIES = 2
    READY = 3


@dataclass(slots=True, eq=False)
class Batch:
    """Consecutive pages of one scope on their way to mid-term memory.

    Attributes:
        live: those of its pages that are not set aside; known when its tasks begin.
        homeless: those of them that have no session yet; all but where the batch is made again. Known likewise.
        before: the page that its first page may continue; -1 where there is none.
        timestamps: those of ``homeless``.
        answer: the tasks' result, see ``stages.tasks``; None until it is there.
        summary_rows: vector rows of the topics' summaries, in their order.
        alone: whether it is joined with no other: it is what is left of one whose tasks failed.
        tokens: of its pages' text; None until that is wanted, which is when all of them are embedded.
    """

    seqs: tuple[int, ...]
    step: Step = Step.EMBEDDING
    live: tuple[int, ...] = ()
    homeless: tuple[int, ...] = ()
    before: int = -1
    timestamps: tuple[str, ...] = ()
    answer: dict[str, Any] | None = None
    summary_rows: list[int] = field(default_factory=list)
    alone: bool = False
    tokens: int | None = None

    @property
    def topics(self) -> list[dict[str, Any]]:
        """The topics of ``homeless``: ``[{"theme", "keywords", "content", "pages"}]``."""
        return [] if self.answer is None else self.answer["topics"]


@dataclass(slots=True, eq=False)
class ScopeFlow:
    """The batches of one scope that are not applied yet, oldest first.

    Attributes:
        overview: a page and the running overview after it, of the last batch whose tasks are done; None before that.
    """

    batches: deque[Batch] = field(default_factory=deque)
    overview: tuple[int, str] | None = None

    def next_for_tasks(self, embedded: Callable[[int], bool]) -> Iterator[Batch]:
        """Yield the batches whose tasks may begin, oldest first.

        All their pages are embedded, and every earlier batch is past its tasks, or is yielded before.
        """
        for batch in self.batches:
            if batch.step == Step.TASKS:
                return
            if batch.step == Step.EMBEDDING:
                if batch.tokens is None and not all(map(embedded, batch.seqs)):
                    return
                yield batch

    def join(self, batches: Sequence[Batch]) -> Batch:
        """Put one batch in the place of neighbouring ones whose tasks have not begun, and return it."""
        if len(batches) == 1:
            return batches[0]
        joined = Batch(tuple(seq for batch in batches for seq in batch.seqs))
        self.batches[self.batches.index(batches[0])] = joined
        for batch in batches[1:]:
            self.batches.remove(batch)
        return joined

    def take_ready(self) -> Batch | None:
        """Take out the oldest batch if it is ready to be applied."""
        if self.batches and self.batches[0].step == Step.READY:
            return self.batches.popleft()
        return None

    def restart(self, gone: set[int]) -> list[Batch]:
        """Begin every batch anew, without the pages ``gone``; return those that had begun their tasks before."""
        begun = [batch for batch in self.batches if batch.step > Step.EMBEDDING]
        left = ((tuple(seq for seq in batch.seqs if seq not in gone), batch.alone) for batch in self.batches)
        self.batches = deque(Batch(seqs, alone=alone) for seqs, alone in left if seqs)
        self.overview = None
        return begun

    def split(self, batch: Batch) -> None:
        """Put two halves in the batch's place, to begin their tasks anew: one of its pages can't be worked on."""
        middle = len(batch.seqs) // 2
        at = self.batches.index(batch)
        self.batches[at] = Batch(batch.seqs[:middle], alone=True)
        self.batches.insert(at + 1, Batch(batch.seqs[middle:], alone=True))
