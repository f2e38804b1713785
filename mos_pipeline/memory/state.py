"""All that is remembered, as one structure with one owner: users, their pages, words, chains and sessions.

Pure: it knows pages by sequence number and vectors by row. The main process's coordinator changes it; a batch's outcome
is applied by the same function when it is new and when it is read back from disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mos_pipeline.config import Config
from mos_pipeline.memory.chains import Chains
from mos_pipeline.memory.page_ids import PageIds
from mos_pipeline.memory.pages import PageTable
from mos_pipeline.memory.ring import ShortTermRing
from mos_pipeline.memory.sessions import MidTerm
from mos_pipeline.memory.word_index import WordIndex

__all__ = ["BatchOutcome", "MemoryState", "Placed", "Scope"]


@dataclass(slots=True, eq=False)
class Scope:
    """One (user, assistant): whose pages these are, and what is known of them.

    Attributes:
        indexed: how many of its pages are in the word index.
        given: how many of its pages have been given out in batches.
        gaps: pages before ``given`` whose batch was lost with a damaged frame; they make batches of their own.
        aside: pages that no worker could work on, with the reason.
    """

    number: int
    user_id: str
    assistant_id: str
    ring: ShortTermRing
    mid_term: MidTerm
    words: WordIndex = field(default_factory=WordIndex)
    indexed: int = 0
    given: int = 0
    gaps: list[int] = field(default_factory=list)
    aside: dict[int, str] = field(default_factory=dict)

    @property
    def page_rows(self) -> int:
        """Owner key of its pages' rows in the vector pool."""
        return 2 * self.number

    @property
    def session_rows(self) -> int:
        """Owner key of its session summaries' rows in the vector pool."""
        return 2 * self.number + 1


class Placed(NamedTuple):
    """Pages put into a session; ``founded`` tells whether the session is new, with the summary and row it begins with.

    The row is a place in this process's vector pool and -1 in a stored outcome.
    """

    session_id: int
    founded: bool
    summary: str
    keywords: list[str]
    timestamp: str
    seqs: list[int]
    row: int


class BatchOutcome(NamedTuple):
    """What a batch changes in mid-term memory.

    Attributes:
        seqs: its pages, in order.
        links: for each page, the page it continues, or -1.
        overviews: ``[[seq, text], …]``: the running overview of the chain that ``seq`` belongs to.
        placed: its pages' sessions; pages set aside are in none.
    """

    seqs: list[int]
    links: list[int]
    overviews: list[list[Any]]
    placed: list[Placed]


class MemoryState:
    """Scopes, the columns over all pages, ids and chains."""

    def __init__(self, store_tag: str, config: Config) -> None:
        self._config = config
        self.pages = PageTable()
        self.ids = PageIds(store_tag)
        self.chains = Chains()
        self.scopes: list[Scope] = []
        self._by_name: dict[tuple[str, str], Scope] = {}

    def find(self, user_id: str, assistant_id: str) -> Scope | None:
        """Return the scope, or None where it has no page."""
        return self._by_name.get((user_id, assistant_id))

    def scope(self, user_id: str, assistant_id: str) -> Scope:
        """Return the scope, made if need be."""
        scope = self._by_name.get((user_id, assistant_id))
        if scope is None:
            scope = Scope(
                len(self.scopes),
                user_id,
                assistant_id,
                ShortTermRing(self._config.short_term.capacity),
                MidTerm(self._config.mid_term),
            )
            self.scopes.append(scope)
            self._by_name[user_id, assistant_id] = scope
        return scope

    def apply(self, scope: Scope, outcome: BatchOutcome, now: float = 0.0) -> None:
        """Enter a batch's outcome at ``now``, in seconds since 1970: links, overviews, sessions."""
        for seq, before in zip(outcome.seqs, outcome.links, strict=True):
            if before >= 0:
                self.chains.link(before, seq)
        for seq, text in outcome.overviews:
            self.chains.set_overview(seq, text)
        for placed in outcome.placed:
            scope.mid_term.apply(placed, now)
