"""Where work goes out to the pools and answers come back to whoever asked.

Units of one turn of the coordinator's are gathered, and go out together: every message wakes a thread here, and a
process there. A query goes at once.

Answers for the coordinator are put into its inbox; answers that a caller waits for (a query's vector) are given at
once, on the supervisor's thread: but only when the coordinator has learned that the embedder is ready, and with which
model. Until then they follow that news through the inbox, or they would be taken for vectors of an unknown model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mos_pipeline.errors import WorkerError
from mos_pipeline.runtime.ledger import Unit
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
        self._gathering = False
        self._gathered: deque[tuple[str, Unit]] = deque()
        self.supervisor: Supervisor | None = None
        self.prompt = False

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Let units wait, and send them at the end of the ``with``; for whoever holds the coordinator's lock."""
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            self.send()

    def submit(
        self, role: str, kind: str, payload: Any, answer: Answer, *, urgent: bool = False, direct: bool = False
    ) -> int:
        """Give a unit to ``role``; ``answer`` is called once, by the coordinator or (``direct``) at once.

        A direct one may be submitted by any thread, others by whoever holds the coordinator's lock.
        """
        supervisor = self.supervisor
        if supervisor is None:  # opened without workers: the work waits for an opening with them
            return 0
        unit = supervisor.unit(kind, payload, urgent=urgent)
        self._open[unit.unit_id] = answer, direct
        if direct:
            self._send(supervisor, role, [unit])
        else:
            self._gathered.append((role, unit))
            if not self._gathering:
                self.send()
        return unit.unit_id

    def send(self) -> None:
        """Send what was gathered."""
        shares: dict[str, list[Unit]] = {}
        while self._gathered:
            role, unit = self._gathered.popleft()
            shares.setdefault(role, []).append(unit)
        if self.supervisor is not None:  # without one nothing was gathered
            for role, units in shares.items():
                self._send(self.supervisor, role, units)

    def _send(self, supervisor: Supervisor, role: str, units: list[Unit]) -> None:
        try:
            supervisor.submit(role, units)
        except WorkerError as error:
            for unit in units:
                self.deliver(role, Outcome(unit.unit_id, "down", error=str(error)))

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
