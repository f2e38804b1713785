"""Where work goes out to the pools and answers come back to whoever asked.

Answers for the coordinator are put into its inbox; answers that a caller waits for (a query's vector) are given at
once, on the supervisor's thread: but only when the coordinator has learned that the embedder is ready, and with which
model. Until then they follow that news through the inbox, or they would be taken for vectors of an unknown model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mos_pipeline.errors import WorkerError
from mos_pipeline.runtime.supervisor import Outcome, Supervisor

__all__ = ["Desk"]

Answer = Callable[[Outcome], None]


class Desk:
    """Matches outcomes with the callbacks of those who submitted the units.

    Attributes:
        prompt: whether direct answers are given at once.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        """``post`` puts a call into the coordinator's inbox."""
        self._post = post
        self._open: dict[int, tuple[Answer, bool]] = {}
        self.supervisor: Supervisor | None = None
        self.prompt = False

    def submit(
        self, role: str, kind: str, payload: Any, answer: Answer, *, urgent: bool = False, direct: bool = False
    ) -> int:
        """Give a unit to ``role``; ``answer`` is called once, by the coordinator or (``direct``) at once."""
        supervisor = self.supervisor
        if supervisor is None:  # opened without workers: the work waits for an opening with them
            return 0
        unit_id = supervisor.reserve_id()
        self._open[unit_id] = answer, direct
        try:
            supervisor.submit(role, unit_id, kind, payload, urgent=urgent)
        except WorkerError as error:
            self.deliver(role, Outcome(unit_id, "down", error=str(error)))
        return unit_id

    def withdraw(self, role: str, unit_id: int) -> None:
        """Forget a unit that nobody waits for any more."""
        if self._open.pop(unit_id, None) is not None and self.supervisor is not None:
            self.supervisor.withdraw(role, unit_id)

    def deliver(self, _role: str, outcome: Outcome) -> None:
        """Pass an outcome on; the supervisor's callback."""
        answer, direct = self._open.pop(outcome.unit_id, (None, False))
        if answer is None:
            return
        if direct and self.prompt:
            answer(outcome)
        else:
            self._post(partial(answer, outcome))
