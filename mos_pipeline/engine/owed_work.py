"""What both kinds of repayments have in common: pages whose owed tasks are asked of the model once more."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from mos_pipeline.memory.state import Scope
from mos_pipeline.runtime.supervisor import Outcome

__all__ = ["Ended", "Fate", "OwedWork", "Repayer", "take_answers"]


class Fate(Enum):
    """How a repayment ended."""

    REPAID = 0  # of one of its tasks, at least
    UNUSABLE = 1  # the endpoint answered, with nothing that can be used
    UNREACHED = 2  # it did not answer
    DROPPED = 3  # what it was to be put in the place of has changed


# Told of the end: what it was about, how it ended, and how many tasks of a page were repaid.
Ended = Callable[["OwedWork", Fate, int], None]


@dataclass(slots=True, eq=False)
class OwedWork:
    """A repayment under way.

    Attributes:
        seqs: the pages, ascending.
        tasks: what is asked of all of them.
        timestamps: those of the pages.
        answered: the tasks that were, once that is known; then ``answers`` has what came.
        before: the page that the first one may continue; -1 for none. Its chain, too, must stay as it is.
        stated: those of the pages that are facts as they stand.
    """

    scope: Scope
    seqs: list[int]
    tasks: list[str]
    ended: Ended
    timestamps: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    before: int = -1
    chain: int = -1
    stated: set[int] = field(default_factory=set)
    over: bool = False

    @property
    def left_unreached(self) -> bool:
        """Whether a task was not answered at all."""
        return not set(self.tasks) <= {*self.answered, *self.answers.get("unusable", ())}

    def end(self, fate: Fate) -> None:
        """Tell the end, once."""
        if not self.over:
            self.over = True
            self.ended(self, fate, len(self.answered) * len(self.seqs) if fate is Fate.REPAID else 0)


class Repayer(Protocol):
    """Repays the tasks of one kind of unit."""

    def choose(self, scope: Scope, passed: Container[int]) -> list[int] | None:
        """Return the pages to be asked of next, without those that are ``passed`` over; None where not now."""
        ...

    def ask(self, scope: Scope, seqs: list[int], ended: Ended) -> OwedWork:
        """Ask the model of pages from ``choose``; ``ended`` is called once."""
        ...


def take_answers(work: OwedWork, outcome: Outcome) -> bool:
    """Note what the stage answered; return False, and end the work, where that is nothing."""
    if outcome.fate == "down":
        work.end(Fate.UNREACHED)
        return False
    if outcome.fate != "done":
        work.end(Fate.UNUSABLE)
        return False
    work.answers = outcome.result
    work.answered = [task for task in work.tasks if task in work.answers]
    if not work.answered:
        work.end(Fate.UNUSABLE if set(work.tasks) == set(work.answers["unusable"]) else Fate.UNREACHED)
    return bool(work.answered)
