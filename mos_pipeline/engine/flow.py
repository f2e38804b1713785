"""The way of one user's batches, in order: embedded, told apart by the tasks, summaries embedded, applied.

Batches of one scope are embedded in any order and even at the same time, but their tasks begin one after the other
(continuity needs the page before) and they are applied in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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
        timestamp: that of its first page.
        answer: the tasks' result, see ``stages.tasks``; None until it is there.
        summary_rows: vector rows of the topics' summaries, in their order.
    """

    seqs: tuple[int, ...]
    step: Step = Step.EMBEDDING
    live: tuple[int, ...] = ()
    homeless: tuple[int, ...] = ()
    before: int = -1
    timestamp: str = ""
    answer: dict[str, Any] | None = None
    summary_rows: list[int] = field(default_factory=list)

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

    def next_for_tasks(self, embedded: Callable[[int], bool]) -> Batch | None:
        """Return the batch whose tasks may begin: all its pages embedded, all earlier batches past their tasks."""
        for batch in self.batches:
            if batch.step == Step.EMBEDDING:
                return batch if all(map(embedded, batch.seqs)) else None
            if batch.step == Step.TASKS:
                return None
        return None

    def take_ready(self) -> Batch | None:
        """Take out the oldest batch if it is ready to be applied."""
        if self.batches and self.batches[0].step == Step.READY:
            return self.batches.popleft()
        return None

    def restart(self, gone: set[int]) -> list[Batch]:
        """Begin every batch anew, without the pages ``gone``; return those that had begun their tasks before."""
        begun = [batch for batch in self.batches if batch.step > Step.EMBEDDING]
        left = (tuple(seq for seq in batch.seqs if seq not in gone) for batch in self.batches)
        self.batches = deque(Batch(seqs) for seqs in left if seqs)
        self.overview = None
        return begun

    def split(self, batch: Batch) -> None:
        """Put two halves in the batch's place, to begin their tasks anew: one of its pages can't be worked on."""
        middle = len(batch.seqs) // 2
        at = self.batches.index(batch)
        self.batches[at] = Batch(batch.seqs[:middle])
        self.batches.insert(at + 1, Batch(batch.seqs[middle:]))
