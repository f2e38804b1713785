"""A query on its way to the embedder, and its vector on the way back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import EMBEDDER
from mos_pipeline.runtime.supervisor import Outcome

__all__ = ["Ask", "QueryVector", "ask"]


class QueryVector:
    """A query's vector on its way from the embedder."""

    def __init__(self, desk: Desk, query: str) -> None:
        self._came = threading.Event()
        self._vector: npt.NDArray[np.float16] | None = None
        self._desk = desk
        self._unit_id = desk.submit(EMBEDDER, "query", [query], self._take, urgent=True, direct=True)

    def _take(self, outcome: Outcome) -> None:
        if outcome.fate == "done":
            self._vector = np.frombuffer(outcome.result, np.float16)
        self._came.set()

    def wait(self, deadline: float) -> npt.NDArray[np.float16] | None:
        """Return the vector, float16 (dimension,), or None where it has not come by ``deadline``, monotonic seconds."""
        if not self._came.wait(max(0.0, deadline - time.monotonic())):
            self._desk.withdraw(EMBEDDER, self._unit_id)  # or a model that loads slowly would begin with old questions
        return self._vector


# Sends a query to the embedder, where there is one.
Ask = Callable[[str], QueryVector | None]


def ask(desk: Desk, query: str) -> QueryVector | None:
    """Send ``query`` to the embedder; None where the pipeline was opened without one."""
    return QueryVector(desk, query) if desk.supervisor is not None else None
