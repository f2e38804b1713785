"""One snapshot of a pipeline for everyone who asks: ``stats()``, the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = ["Stats", "WorkerStats"]


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One pool of worker processes.

    Attributes:
        state: "starting", "ready" or "failed".
        waiting: pieces of work given to the pool and not answered yet.
        restarts: workers started again after a death.
        error: why it stays down, where it does.
    """

    state: str
    pids: tuple[int, ...]
    waiting: int
    restarts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Stats:
    """A pipeline at one moment.

    Attributes:
        pages: pages that were accepted and not forgotten.
        users: distinct users who have pages.
        sessions: mid-term sessions.
        facts: facts of long-term memory, about users and assistants.
        forgotten: pages forgotten whose bytes are still on the disk, until the next compaction.
        backlog_pages: pages without a vector, those in rings that are not full included.
        backlog_bytes: their size.
        in_flight_texts: texts at the embedder.
        unwritten: pieces of work that the writer has not acknowledged.
        restored: whether everything that was stored is in memory.
        vectors: rows in the vector pool.
        vector_bytes: shared memory given to the pool, bytes.
        set_aside: page id and reason of each page that no worker could work on.
        model: identity of the store's embedding model; empty before the first vector.
        damage: file, offset and reason of what could not be read at opening.
        workers: by role: "embedder", "llm", "writer"; empty where opened without workers.
    """

    path: str
    pages: int
    users: int
    sessions: int
    facts: int
    forgotten: int
    backlog_pages: int
    backlog_bytes: int
    in_flight_texts: int
    unwritten: int
    restored: bool
    vectors: int
    vector_bytes: int
    set_aside: dict[str, str]
    model: dict[str, Any]
    damage: list[str]
    workers: dict[str, WorkerStats]

    def as_dict(self) -> dict[str, Any]:
        """Return plain nested dicts and lists, for JSON."""
        return dataclasses.asdict(self)
