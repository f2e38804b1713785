"""A reader's own embedder: for questions alone, started with the first of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mos_pipeline.config import Config
from mos_pipeline.engine.asking import QueryVector
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import EMBEDDER, embedder_role
from mos_pipeline.runtime.supervisor import PoolState, Supervisor
from mos_pipeline.stages.identity import identity_of

__all__ = ["Questions"]


class Questions:
    """Asks the embedder; every method may be called from any thread.

    Attributes:
        model: the identity of the embedder's model; empty until it has loaded.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._closed = False
        self._desk = Desk(_at_once)
        self._desk.prompt = True  # whoever asks compares the model's identity with the store's
        self.model: dict[str, Any] = {}

    def ask(self, query: str) -> QueryVector | None:
        """Send ``query`` to the embedder, started if need be; None after ``close``."""
        with self._lock:
            if self._closed:
                return None
            if self._desk.supervisor is None:
                roles = [embedder_role(self._config)]
                self._desk.supervisor = Supervisor(roles, self._config.runtime, self._desk.deliver, self._changed)
                self._desk.supervisor.start()
        return QueryVector(self._desk, query)

    def _changed(self, _role: str) -> None:
        state = self.state()
        if state is not None and state.error is None:
            self.model = identity_of(state.info)

    def state(self) -> PoolState | None:
        """Return how the embedder is; None where it was not needed yet."""
        supervisor = self._desk.supervisor
        return None if supervisor is None else supervisor.state(EMBEDDER)

    def close(self, deadline: float) -> None:
        """Stop the embedder by ``deadline``, monotonic seconds."""
        with self._lock:
            self._closed = True
            if self._desk.supervisor is not None:
                self._desk.supervisor.close(deadline)


def _at_once(call: Callable[[], None]) -> None:
    call()
