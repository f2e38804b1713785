"""Looking into a pipeline that is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline import MemoryPipeline
from mos_pipeline.runtime.supervisor import Outcome

__all__ = [
    "NotReadyError",
    "at_rest",
    "embed_query",
    "is_working",
    "pids_of",
    "wait_ready",
    "watch_tasks",
    "watch_texts",
]

START_TIMEOUT_S = 180.0
ANSWER_TIMEOUT_S = 60.0
POLL_S = 0.02


class NotReadyError(RuntimeError):
    """A worker stays down, or takes too long to get ready."""


def wait_ready(pipeline: MemoryPipeline) -> None:
    """Return when every worker is ready for work.

    Raises:
        NotReadyError: one stays down, or takes too long.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        workers = pipeline.stats().workers
        if wrong := [f"{role}: {worker.error}" for role, worker in workers.items() if worker.error]:
            raise NotReadyError(f"workers don't start: {'; '.join(wrong)}")
        if all(worker.state == "ready" for worker in workers.values()):
            return
        if time.monotonic() > deadline:
            raise NotReadyError(f"workers are not ready after {START_TIMEOUT_S:g} s: {workers}")
        time.sleep(POLL_S)


def is_working(pipeline: MemoryPipeline) -> bool:
    """Return whether the embedder has texts, and more wait behind them."""
    stats = pipeline.stats()
    return stats.in_flight_texts > 0 and stats.backlog_pages > stats.in_flight_texts


def at_rest(pipeline: MemoryPipeline) -> bool:
    """Return whether nothing is to be done: pages of rings that are not full stay there."""
    stats, coordinator = pipeline.stats(), pipeline._engine.coordinator  # the first has accepted pages entered
    with coordinator.lock:
        calm = coordinator._idle
    return calm and not any(worker.waiting for worker in stats.workers.values())


def pids_of(pipeline: MemoryPipeline, role: str) -> tuple[int, ...]:
    """Return the process ids of a pool: of the ``embedder``, the ``llm`` or the ``writer``."""
    return pipeline.stats().workers[role].pids


def embed_query(pipeline: MemoryPipeline, query: str) -> npt.NDArray[np.float16]:
    """Have the embedder embed ``query``, as ``retrieve`` does, and return the vector, float16 (dimension,)."""
    came = Event()
    found: list[Outcome] = []

    def take(outcome: Outcome) -> None:
        found.append(outcome)
        came.set()

    pipeline._engine.desk.submit("embedder", "query", [query], take, urgent=True, direct=True)
    if not came.wait(ANSWER_TIMEOUT_S) or found[0].fate != "done":
        reason = f"{found[0].fate}: {found[0].error}" if found else "no answer"
        raise RuntimeError(f"the query could not be embedded: {reason}")
    return np.frombuffer(found[0].result, np.float16)


def watch_texts(pipeline: MemoryPipeline) -> list[str]:
    """Return a list to which every text is appended that the embedder gets from now on, queries left out."""
    texts: list[str] = []

    def look(role: str, kind: str, payload: Any) -> None:
        if role == "embedder" and kind in ("embed", "ahead"):
            texts.extend(payload[0])

    _watch(pipeline, look)
    return texts


def watch_tasks(pipeline: MemoryPipeline) -> list[tuple[str, Any]]:
    """Return a list to which the kind and payload of every task are appended that the LLM pool gets from now on."""
    tasks: list[tuple[str, Any]] = []

    def look(role: str, kind: str, payload: Any) -> None:
        if role == "llm":
            tasks.append((kind, payload))

    _watch(pipeline, look)
    return tasks


def _watch(pipeline: MemoryPipeline, look: Callable[[str, str, Any], None]) -> None:
    desk = pipeline._engine.desk
    submit = desk.submit

    def watched(role, kind, payload, answer, *, urgent=False, direct=False):  # type: ignore[no-untyped-def]
        look(role, kind, payload)
        return submit(role, kind, payload, answer, urgent=urgent, direct=direct)

    desk.submit = watched  # type: ignore[method-assign]
