"""Pages move to another session, and a session gets another summary, as a better answer to their topics has come."""

from __future__ import annotations

from mos_pipeline.memory.sessions import MidTerm, Placement

__all__ = ["rehouse"]


def rehouse(memory: MidTerm, placement: Placement, now: float) -> int:
    """Enter a placement whose pages may be in other sessions: these they leave. Return a row of no use any more, or -1.

    Where the session is there and the placement has a summary, that replaces its own; the row is that of the old one.
    A page that was analysed stays so. A session that may tell of pages that have left it notes that; one may be empty.

    Args:
        memory: what it is entered in.
        placement: with a session that is there, or is to be founded.
        now: in seconds since 1970.
    """
    held = dict[int, list[int]]()
    for seq in placement.seqs:
        session_id = memory.session_of(seq)
        if session_id is not None and session_id != placement.session_id:
            held.setdefault(session_id, []).append(seq)
    analysed = set[int]()
    for session_id, seqs in held.items():
        if (session := memory.get(session_id)) is not None:
            analysed |= set(seqs).difference(memory.leave(session, seqs, tells=True))
    known, freed = memory.get(placement.session_id), -1
    if known is not None and placement.summary:
        freed, known.summary, known.row = known.row, placement.summary, placement.row
    memory.apply(placement, now)
    if (session := memory.get(placement.session_id)) is not None:
        memory.no_longer_fresh(session, analysed)
    return freed
