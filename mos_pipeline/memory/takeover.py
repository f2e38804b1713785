"""Mid- and long-term memory of one (user, assistant) that another library made, to be taken over as it is.

Pages are named by their ids, and must have been accepted before. A vector is float16 (dimension,), L2-normalised; None
where it is to be made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["TakenFact", "TakenPage", "TakenSession", "Takeover", "Vector"]

Vector = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class TakenPage:
    """A page whose way to mid-term memory is over; ``text`` is what its vector stands for."""

    page_id: str
    text: str
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class TakenSession:
    """A session.

    Attributes:
        pages: its pages; one is in one session.
        fresh: those of them that were not analysed yet.
        tells_of: pages in other sessions that its summary may tell of.
        visits, interactions, last_visit, accesses: as ``memory.session.Session`` has them.
    """

    summary: str
    keywords: tuple[str, ...]
    timestamp: str
    pages: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    tells_of: tuple[str, ...] = ()
    visits: int = 0
    interactions: int = 0
    last_visit: float = 0.0
    accesses: int = 0
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class TakenFact:
    """A fact about the user, or (not ``of_user``) of the assistant; which pages it was made from is not known."""

    of_user: bool
    text: str
    timestamp: str
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Takeover:
    """All of it.

    Attributes:
        name: what it is known by, so that it is taken over once.
        pages: all pages that are worked off, in their order.
        links: (earlier, later): the later page continues the earlier.
        overviews: (page, text): the running overview of the page's chain.
        sessions: in the order of their founding.
        profile: empty for none; ``updated`` is when it was made.
        facts: the oldest first.
        origins: the pages that profile and facts were made from, or may have been.
    """

    name: bytes
    pages: tuple[TakenPage, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    overviews: tuple[tuple[str, str], ...] = ()
    sessions: tuple[TakenSession, ...] = ()
    profile: str = ""
    updated: str = ""
    facts: tuple[TakenFact, ...] = ()
    origins: tuple[str, ...] = field(default=())
