"""Where work goes out to the pools and answers come back to whoever asked.

Units of one turn of the coordinator's are gathered, and go out together: every message wakes a thread here, and a
process there. A query goes at once.

Answers for the coordinator are put into its inbox; answers that a caller waits for (a query's vector) are given at
once, on the supervisor's thread: but only when the coordinator has learned that the embedder is ready, and with which
model. Until then they follow that news through the inbox, or they would be taken for vectors of an unknown model.
What is ``asked`` has nothing to do with vectors, and is answered at once, piece by piece where it comes so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from mos_pipeline.errors import InputError, WorkerError
from mos_pipeline.runtime.ledger import Unit
from mos_pipeline.runtime.supervisor import Outcome, Supervisor

__all__ = ["CLOSED", "Answer", "Desk"]

Answer = Callable[[Outcome], None]
Piece = Callable[[Any], None]
CLOSED = "the store was closed"


class _Open(NamedTuple):
    """A unit that is not answered yet.

    Attributes:
        direct: whether it is answered at once, when the embedder is ready.
        piece: takes parts of its result; it is answered at once, whatever else is the case.
    """

    answer: Answer
    direct: bool = False
    piece: Piece | None = None


class Desk:
    """Matches outcomes with the callbacks of those who submitted the units.

    Attributes:
        prompt: whether direct answers are given at once.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        """``post`` puts a call into the coordinator's inbox."""
        self._post = post
        self._open: dict[int, _Open] = {}
        self._closed = False
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
        self._open[unit.unit_id] = _Open(answer, direct)
        if direct:
            self._send(supervisor, role, [unit])
        else:
            self._gathered.append((role, unit))
            if not self._gathering:
                self.send()
        return unit.unit_id

    def soon(self, call: Callable[[], None]) -> None:
        """Have the coordinator make a call of its own, as if an answer had come."""
        self._post(call)

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

    def ask(self, role: str, kind: str, payload: Any, answer: Answer, piece: Piece) -> int:
        """Give an urgent unit to ``role``; from any thread. For whoever waits in a thread of their own.

        ``piece`` is called for each part of the result, then ``answer`` once, on the supervisor's thread as soon as
        they come; by ``close`` at the latest, as down.

        Raises:
            InputError: there are no workers.
        """
        supervisor = self.supervisor
        if supervisor is None:
            raise InputError(
                "the pipeline was opened with workers=False, so nobody asks the endpoint; open it without, or hand a "
                "model to respond"
            )
        unit = supervisor.unit(kind, payload, urgent=True)
        self._open[unit.unit_id] = _Open(answer, piece=piece)
        self._send(supervisor, role, [unit])
        if self._closed:  # perhaps just now
            self._end(unit.unit_id)
        return unit.unit_id

    def withdraw(self, role: str, unit_id: int) -> None:
        """Forget a unit that nobody waits for any more."""
        if self._open.pop(unit_id, None) is not None and self.supervisor is not None:
            self.supervisor.withdraw(role, unit_id)

    def abandon(self, role: str, unit_id: int) -> None:
        """Forget what was asked, and have it given up wherever it is; a finaliser may do so."""
        if self._open.pop(unit_id, None) is not None and self.supervisor is not None:
            self.supervisor.abandon(role, unit_id)

    def deliver(self, _role: str, outcome: Outcome) -> None:
        """Pass an outcome on; the supervisor's callback."""
        one = self._open.pop(outcome.unit_id, None)
        if one is None:
            return
        if one.piece is not None or (one.direct and self.prompt):
            one.answer(outcome)
        else:
            self._post(partial(one.answer, outcome))

    def deliver_piece(self, unit_id: int, piece: Any) -> None:
        """Pass a part of a result on; the supervisor's callback."""
        one = self._open.get(unit_id)
        if one is not None and one.piece is not None:
            one.piece(piece)

    def close(self) -> None:
        """Tell those whose questions are not answered yet that they won't be."""
        self._closed = True
        for unit_id in list(self._open):
            one = self._open.get(unit_id)
            if one is not None and one.piece is not None:
                self._end(unit_id)

    def _end(self, unit_id: int) -> None:
        self.deliver("", Outcome(unit_id, "down", error=CLOSED))
