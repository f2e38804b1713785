"""What the models' answers change in memory, as it is entered and as it is stored."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "BatchOutcome",
    "BatchRepaid",
    "Forgotten",
    "Placed",
    "PromotionOutcome",
    "PromotionRepaid",
    "Told",
]


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
        time: when it was applied, in seconds since 1970.
        evicted: sessions that had to go afterwards.
        owed: its tasks that no model could answer: continuity of all its pages, topics of those in ``placed``.
    """

    seqs: list[int]
    links: list[int]
    overviews: list[list[Any]]
    placed: list[Placed]
    time: float
    evicted: tuple[int, ...] | list[int] = ()
    owed: tuple[str, ...] | list[str] = ()


class BatchRepaid(NamedTuple):
    """What a model's answer, that was owed, changes in mid-term memory.

    Attributes:
        continuity: pages whose links are replaced, ascending; none where that task was not answered.
        links: for each of them, the page it continues, or -1.
        overviews: as in ``BatchOutcome``.
        topics: pages whose topics were told, ascending; none where that task was not answered.
        placed: where they are from now on, with those that follow them. One that is ``founded`` may be there already:
            then its summary and row are replaced. Sessions that all pages have left go.
        time: when it was applied, in seconds since 1970.
        evicted: sessions that had to go afterwards.
    """

    continuity: list[int]
    links: list[int]
    overviews: list[list[Any]]
    topics: list[int]
    placed: list[Placed]
    time: float
    evicted: tuple[int, ...] | list[int] = ()


class Told(NamedTuple):
    """A fact that was told.

    Attributes:
        of_user: whether it is about the user, or what the assistant said of itself.
        text: the fact.
        timestamp: that of the page that tells it.
        seqs: the pages that tell it.
        same_as: the text of a known fact that says nearly the same; empty where there is none.
        new: whether it was not known yet, in any words; then it has a vector.
        row: of its vector in this process's pool; -1 where it has none, and in a stored outcome.
    """

    of_user: bool
    text: str
    timestamp: str
    seqs: list[int]
    same_as: str
    new: bool
    row: int


class PromotionOutcome(NamedTuple):
    """What a promotion changes in long-term memory.

    Attributes:
        seqs: the pages that were analysed, ascending; none where pages are facts as they stand.
        profile: the whole updated profile; empty where there is nothing to tell.
        timestamp: that of the last page.
        told: the facts.
        time: when it was applied, in seconds since 1970.
        owed: its tasks that no model could answer.
    """

    seqs: list[int]
    profile: str
    timestamp: str
    told: list[Told]
    time: float
    owed: tuple[str, ...] | list[str] = ()


class PromotionRepaid(NamedTuple):
    """What a model's answer, that was owed, changes in long-term memory.

    Attributes:
        tasks: those that were answered.
        seqs: the pages that were asked of, ascending.
        profile: the whole updated profile; empty where that task was not answered, or there is nothing to tell.
        timestamp: that of the last page.
        retracted: pages whose facts, told by the answer that stood in, go before the new ones enter.
        told: the facts.
    """

    tasks: list[str]
    seqs: list[int]
    profile: str
    timestamp: str
    retracted: list[int]
    told: list[Told]


class Forgotten(NamedTuple):
    """What went with forgotten pages.

    Attributes:
        rows: vector rows that are of no use any more.
        redo: pages that are left of the sessions and chains that went, and are to be worked on again.
    """

    rows: list[int]
    redo: set[int]
