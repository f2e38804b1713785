"""From the tasks' answers to a batch's outcome: which page continues which, and which session each belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_pipeline.engine.flow import Batch
from mos_pipeline.memory.outcomes import BatchOutcome, Placed
from mos_pipeline.memory.state import Scope
from mos_pipeline.runtime.vector_pool import VectorPool

__all__ = ["decide"]


def decide(scope: Scope, batch: Batch, now: float, pool: VectorPool) -> BatchOutcome:
    """Return the batch's outcome; founded sessions' summary rows are committed to ``pool``, the others released.

    ``now`` is the clock, in unix seconds.
    """
    if not batch.live or batch.answer is None:
        return BatchOutcome([], [], [], [], now)
    placed = [
        _place(scope, batch, topic, row, pool) for topic, row in zip(batch.topics, batch.summary_rows, strict=True)
    ]
    links, overviews = _links(batch, batch.answer["continues"]), _overviews(batch.live, batch.answer)
    return BatchOutcome(list(batch.live), links, overviews, [entry for entry in placed if entry is not None], now)


def _links(batch: Batch, continues: list[bool]) -> list[int]:
    """Return for each page the one it continues, or -1; the first may continue the page before the batch."""
    before = (batch.before, *batch.live[:-1])
    return [earlier if yes else -1 for earlier, yes in zip(before, continues, strict=True)]


def _overviews(live: tuple[int, ...], answer: dict[str, Any]) -> list[list[Any]]:
    """Return one overview a chain: that of the last page of each run of pages that continue each other."""
    continued = [*answer["continues"][1:], False]
    return [[seq, text] for seq, text, goes_on in zip(live, answer["overviews"], continued, strict=True) if not goes_on]


def _place(scope: Scope, batch: Batch, topic: dict[str, Any], row: int, pool: VectorPool) -> Placed | None:
    """Return the topic's session, a new one begins with its first page; None where all of them have theirs already."""
    left = [index for index in topic["pages"] if scope.mid_term.session_of(batch.homeless[index]) is None]
    seqs = [batch.homeless[index] for index in left]
    if not seqs:
        pool.release([row])
        return None
    vector = pool.read([row])[0]
    sessions, cosines = pool.scores(scope.session_rows, vector)
    keywords = list(topic["keywords"])
    best = scope.mid_term.place(keywords, sessions, cosines)
    if best is not None:
        pool.release([row])
        return Placed(best, False, "", keywords, "", seqs, -1)
    session_id = scope.mid_term.reserve_id()
    pool.commit([row], np.array([session_id], np.int64))
    return Placed(session_id, True, topic["content"], keywords, batch.timestamps[left[0]], seqs, row)
