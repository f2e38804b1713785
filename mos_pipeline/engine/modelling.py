"""Work with a model that is done once, in a process of its own: loading it to see what it is, making its int8 form."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from mos_pipeline.config import Config, Runtime
from mos_pipeline.errors import DeadlineError, ModelNotFoundError, WorkerError
from mos_pipeline.runtime.supervisor import Role, Supervisor
from mos_pipeline.stages.optimise import Bounds, OptimiseStage, Talk

__all__ = ["ModelWork", "optimising", "worker_error"]

OPTIMISER = "optimiser"
PATIENCE_S = 3600.0  # quantising a large model on a slow machine


def worker_error(text: str) -> WorkerError:
    """Return the error that an embedder's pool has failed with."""
    kind = ModelNotFoundError if text.startswith("ModelNotFoundError") else WorkerError
    return kind(text.removeprefix("ModelNotFoundError: "))


class ModelWork:
    """The one worker of ``role``, which does all its work in getting ready; use it as a context manager."""

    def __init__(self, role: Role, runtime: Runtime) -> None:
        """Start it."""
        self._role, self._runtime = role, runtime
        self._changed = threading.Event()
        self._supervisor = Supervisor([role], runtime, lambda *_: None, lambda _: self._changed.set())
        self._supervisor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.close(time.monotonic() + self._runtime.close_timeout_s)

    def result(self) -> dict[str, Any]:
        """Wait until it is ready, and return what it has told.

        Raises:
            ModelNotFoundError, WorkerError: it can't work.
            DeadlineError: it is not ready within ``runtime.start_timeout_s``.
        """
        patience = self._runtime.start_timeout_s
        self._changed.wait(patience)  # it says so when it is ready, and when it never will be
        state = self._supervisor.state(self._role.name)
        if state.error is not None:
            raise worker_error(state.error)
        if not state.info:
            raise DeadlineError(f"the embedding model was not ready within {patience} s (runtime.start_timeout_s)")
        return dict(state.info)


def optimising(config: Config, texts: Sequence[str], talks: Sequence[Talk], bounds: Bounds) -> ModelWork:
    """Begin to make the int8 form of the configured model; its result is what ``OptimiseStage.prepare`` tells."""
    role = Role(OPTIMISER, OptimiseStage, (config.embedding, list(texts), list(talks), bounds))
    patience = max(PATIENCE_S, config.runtime.start_timeout_s)
    return ModelWork(role, replace(config.runtime, start_timeout_s=patience, max_restarts=1))
