"""From the tasks' answers to a batch's outcome: which page continues which, and which session each belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mos_pipeline.engine.flow import Batch
from mos_pipeline.memory.outcomes import BatchOutcome, Placed
from mos_pipeline.memory.sessions import Session
from mos_pipeline.memory.state import Scope
from mos_pipeline.runtime.vector_pool import VectorPool

__all__ = ["continuity", "decide", "place_again"]


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


def place_again(
    scope: Scope,
    seqs: Sequence[int],
    topics: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    timestamps: Sequence[str],
    pool: VectorPool,
) -> list[Placed]:
    """Return the sessions of pages whose topics were owed until now; as to ``pool``, see ``decide``.

    A session that the answers of before had founded gives way: a topic that joins no other session takes its place,
    under its own summary. Pages that had joined it go where most of the pages went that it was founded with.

    Args:
        scope: whose pages.
        seqs: the pages that were asked of.
        topics: the answer, its pages being indices into ``seqs``.
        rows: of the vectors of the topics' summaries.
        timestamps: those of ``seqs``; a session that is founded has that of its topic's first page.
        pool: where the vectors are.
    """
    topic_of = {seqs[index]: number for number, topic in enumerate(topics) for index in topic["pages"]}
    giving_way = _giving_way(scope, topic_of)
    placed = list[Placed]()
    for number, (topic, row) in enumerate(zip(topics, rows, strict=True)):
        mine = giving_way.get(number, [])
        theirs = [seq for session in mine for seq in session.seqs if seq not in topic_of]
        pages = sorted([*theirs, *(seqs[index] for index in topic["pages"])])
        vector, keywords = pool.read([row])[0], list(topic["keywords"])
        sessions, cosines = pool.scores(scope.session_rows, vector)
        others = ~np.isin(sessions, [session.session_id for group in giving_way.values() for session in group])
        best = scope.mid_term.place(keywords, sessions[others], cosines[others])
        if best is not None:
            pool.release([row])
            placed.append(Placed(best, False, "", keywords, "", pages, -1))
            continue
        session_id = mine[0].session_id if mine else scope.mid_term.reserve_id()
        pool.commit([row], np.array([session_id], np.int64))
        timestamp = timestamps[min(topic["pages"])]
        placed.append(Placed(session_id, True, topic["content"], keywords, timestamp, pages, row))
    return placed


def _giving_way(scope: Scope, topic_of: Mapping[int, int]) -> dict[int, list[Session]]:
    """Return the sessions that give way to each topic, the one with most of its pages first."""
    found = dict[int, list[tuple[int, int, Session]]]()
    for session_id in sorted(scope.owed.stand_ins):
        session = scope.mid_term.get(session_id)
        counts = Counter(topic_of[seq] for seq in session.seqs if seq in topic_of) if session is not None else None
        if session is not None and counts:
            number, count = max(counts.items(), key=lambda entry: (entry[1], -entry[0]))
            found.setdefault(number, []).append((-count, session_id, session))
    return {number: [session for *_, session in sorted(group)] for number, group in found.items()}
