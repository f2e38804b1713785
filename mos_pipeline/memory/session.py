"""A session: pages of one topic under one summary."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mos_pipeline.memory.ascending import column

__all__ = ["Placement", "Session"]


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
        visits: N_visit, retrievals that matched it since its pages were last analysed.
        interactions: L_interaction, pages that came since then.
        last_visit: when it was last retrieved, analysed or given pages, in seconds since 1970.
        accesses: retrievals that matched it in all its life.
        fresh: its pages that were not analysed yet, ascending.
        tells_of: pages of other sessions that its summary may tell of, ascending; none but where it was taken over.
    """

    session_id: int
    summary: str
    timestamp: str
    row: int
    keywords: set[str] = field(default_factory=set)
    seqs: array[int] = field(default_factory=column)
    visits: int = 0
    interactions: int = 0
    last_visit: float = 0.0
    accesses: int = 0
    fresh: array[int] = field(default_factory=column)
    tells_of: array[int] = field(default_factory=column)

    def as_plain(self) -> list[Any]:
        """Return everything but the row as msgpack can store it."""
        plain = [
            self.session_id,
            self.summary,
            self.timestamp,
            sorted(self.keywords),
            self.seqs.tolist(),
            self.visits,
            self.interactions,
            self.last_visit,
            self.accesses,
            self.fresh.tolist(),
        ]
        return [*plain, self.tells_of.tolist()] if self.tells_of else plain

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Session:
        """Return the session that ``as_plain`` was told of, without a row."""
        session_id, summary, timestamp, keywords, seqs, *figures, fresh = plain[:10]
        columns = [array("q", seqs) for seqs in (fresh, *plain[10:])]
        return cls(session_id, summary, timestamp, -1, set(keywords), array("q", seqs), *figures, *columns)
