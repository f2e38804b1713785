"""A pool of workers of a reader's own, started when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mos_pipeline.config import Runtime
from mos_pipeline.engine.desk import Desk
from mos_pipeline.runtime.supervisor import PoolState, Role, Supervisor

__all__ = ["OwnPool"]


class OwnPool:
    """The workers of one role, and the desk that gives work to them. Every method may be called from any thread."""

    def __init__(self, role: Role, runtime: Runtime) -> None:
        self._role = role
        self._runtime = runtime
        self._lock = threading.Lock()
        self._closed = False
        self._desk = Desk(_at_once)
        self._desk.prompt = True  # whoever asks compares the model's identity with the store's

    def started(self, changed: Callable[[str], None] = lambda _: None) -> Desk | None:
        """Return the desk, its workers begun to be started; None after ``close``.

        ``changed`` is called on the supervisor's thread when the pool is ready, or has failed.
        """
        with self._lock:
            if self._closed:
                return None
            desk = self._desk
            if desk.supervisor is None:
                desk.supervisor = Supervisor([self._role], self._runtime, desk.deliver, changed, desk.deliver_piece)
                desk.supervisor.start()
        return desk

    def state(self) -> PoolState | None:
        """Return how the pool is; None where it was not needed yet."""
        supervisor = self._desk.supervisor
        return None if supervisor is None else supervisor.state(self._role.name)

    def close(self, deadline: float) -> None:
        """Stop the workers by ``deadline``, monotonic seconds."""
        with self._lock:
            self._closed = True
            self._desk.close()
            if self._desk.supervisor is not None:
                self._desk.supervisor.close(deadline)


def _at_once(call: Callable[[], None]) -> None:
    call()
