"""Mid-term memory of one scope: sessions, which are pages of one topic under one summary."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["MidTerm", "Placement", "Session"]


class Placement(Protocol):
    """Pages that go into a session; what the session begins with counts only where it is not there yet."""

    @property
    def session_id(self) -> int:
        """The session, from ``place`` or ``reserve_id``."""

    @property
    def summary(self) -> str:
        """The topic's summary."""

    @property
    def keywords(self) -> Sequence[str]:
        """The topic's keywords; the session gains them."""

    @property
    def timestamp(self) -> str:
        """The moment of founding, as text."""

    @property
    def seqs(self) -> Sequence[int]:
        """The topic's pages."""

    @property
    def row(self) -> int:
        """Row of the summary's embedding in the vector pool, -1 for none."""


@dataclass(slots=True, eq=False)
class Session:
    """One topic's pages.

    Attributes:
        session_id: unique within the scope, ascending in the order of founding, never used again.
        summary: the founding topic's; joining topics leave it as it is.
        timestamp: of the founding, as given.
        row: row of the summary's embedding in the vector pool, -1 for none; not part of a snapshot's meaning, as it
            is another one after a restart.
        keywords: those of all its topics, case-folded.
        seqs: its pages, ascending.
    """

    session_id: int
    summary: str
    timestamp: str
    row: int
    keywords: set[str] = field(default_factory=set)
    seqs: array[int] = field(default_factory=lambda: array("q"))


class MidTerm:
    """The sessions of one scope. Not for several threads at once: its owner holds a lock.

    Args:
        similarity_threshold: a topic joins a session from this cosine + Jaccard on.
    """

    __slots__ = ("_next_id", "_pages", "_session_ids", "_sessions", "_threshold")

    def __init__(self, similarity_threshold: float) -> None:
        self._threshold = similarity_threshold
        self._sessions: dict[int, Session] = {}
        self._next_id = 0
        self._pages = array("q")  # ascending, with the session of each beside it
        self._session_ids = array("q")

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def sessions(self) -> list[Session]:
        """The sessions, in the order in which they were founded."""
        return list(self._sessions.values())

    def get(self, session_id: int) -> Session | None:
        """Return a session, or None where it is not there."""
        return self._sessions.get(session_id)

    def session_of(self, seq: int) -> int | None:
        """Return the id of the session that holds page ``seq``, or None where none does."""
        at = bisect_left(self._pages, seq)
        return self._session_ids[at] if at < len(self._pages) and self._pages[at] == seq else None

    def place(
        self, keywords: Iterable[str], session_ids: NDArray[np.int64], cosines: NDArray[np.floating[Any]]
    ) -> int | None:
        """Return the id of the session that a topic joins, or None where it founds one. Nothing is changed.

        A session's score is the cosine of the two summaries' embeddings + the Jaccard index of the keywords; the best
        one is joined if it reaches the threshold, of equal ones the oldest.

        Args:
            keywords: the topic's.
            session_ids: the sessions to choose from, in any order, shape (s,), int64. One that is reserved but not
                applied yet has no keywords yet.
            cosines: of the topic's summary embedding and theirs, shape (s,), float.
        """
        if not len(session_ids):
            return None
        wanted = _folded(keywords)
        overlaps = [self._jaccard(wanted, session_id) for session_id in session_ids.tolist()]
        scores = np.asarray(cosines, np.float64) + overlaps
        best = scores.max()
        return int(session_ids[scores == best].min()) if best >= self._threshold else None

    def reserve_id(self) -> int:
        """Return the id for a session that is about to be founded; it is not given out again."""
        self._next_id += 1
        return self._next_id - 1

    def apply(self, placement: Placement) -> None:
        """Enter a placement: its pages and keywords go into its session, which is founded if it is not there.

        A page that is in a session stays in that one, so applying a placement twice changes nothing.
        """
        session = self._sessions.get(placement.session_id)
        if session is None:
            session = Session(placement.session_id, placement.summary, placement.timestamp, placement.row)
            self._sessions[session.session_id] = session
            self._next_id = max(self._next_id, session.session_id + 1)
        session.keywords |= _folded(placement.keywords)
        for seq in placement.seqs:
            self._enter(session, seq)

    def set_rows(self, rows: Mapping[int, int]) -> None:
        """Set where the summaries' embeddings are, by session id."""
        for session_id, row in rows.items():
            self._sessions[session_id].row = row

    def _enter(self, session: Session, seq: int) -> None:
        at = bisect_left(self._pages, seq)
        if at < len(self._pages) and self._pages[at] == seq:
            return
        self._pages.insert(at, seq)
        self._session_ids.insert(at, session.session_id)
        insort(session.seqs, seq)

    def _jaccard(self, wanted: frozenset[str], session_id: int) -> float:
        session = self._sessions.get(session_id)
        if session is None:
            return 0.0
        common = len(wanted & session.keywords)
        return common / (len(wanted) + len(session.keywords) - common) if common else 0.0


def _folded(keywords: Iterable[str]) -> frozenset[str]:
    return frozenset(keyword.casefold() for keyword in keywords)
