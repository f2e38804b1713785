"""From the tasks' answers to a batch's outcome: which page continues which, and which session each belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mos_pipeline.engine.flow import Batch
from mos_pipeline.memory.outcomes import BatchOutcome, Placed
from mos_pipeline.memory.state import Scope
from mos_pipeline.runtime.vector_pool import VectorPool

__all__ = ["continuity", "decide"]


def decide(scope: Scope, batch: Batch, now: float, pool: VectorPool) -> BatchOutcome:
    """Return the batch's outcome; founded sessions' summary rows are committed to ``pool``, the others released.

    ``now`` is the clock, in unix seconds.
    """
    if not batch.live or batch.answer is None:
        return BatchOutcome([], [], [], [], now)
    placed = [
        _place(scope, batch, topic, row, pool) for topic, row in zip(batch.topics, batch.summary_rows, strict=True)
    ]
    links, overviews = continuity(batch.before, batch.live, batch.answer)
    entries = [entry for entry in placed if entry is not None]
    return BatchOutcome(list(batch.live), links, overviews, entries, now, owed=list(batch.answer["owed"]))


def continuity(before: int, seqs: Sequence[int], answer: Mapping[str, Any]) -> tuple[list[int], list[list[Any]]]:
    """Return what the task of that name told of pages ``seqs``: links and overviews, as in ``BatchOutcome``.

    There is one link a page: the first may continue the page ``before``, where that is not -1. There is one overview a
    chain: that of the last page of each run of pages that continue each other.
    """
    continues, overviews = answer["continues"], answer["overviews"]
    links = [earlier if yes else -1 for earlier, yes in zip((before, *seqs[:-1]), continues, strict=True)]
    goes_on = [*continues[1:], False]
    return links, [[seq, text] for seq, text, more in zip(seqs, overviews, goes_on, strict=True) if not more]


def _place(scope: Scope, batch: Batch, topic: dict[str, Any], row: int, pool: VectorPool) -> Placed | None:
    """Return the topic's session, a new one begins with the batch; None where all its pages have theirs already."""
    seqs = [batch.homeless[index] for index in topic["pages"]]
    seqs = [seq for seq in seqs if scope.mid_term.session_of(seq) is None]
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
    return Placed(session_id, True, topic["content"], keywords, batch.timestamp, seqs, row)
