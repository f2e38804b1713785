"""Mid-term memory of one scope: its sessions and their heat."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mos_pipeline import config
from mos_pipeline.memory.ascending import SeqMap, column, contains, remove
from mos_pipeline.memory.heat import HeatQueue, heat, recency
from mos_pipeline.memory.keywords import KeywordIndex
from mos_pipeline.memory.rarity import Rank, RarityQueue
from mos_pipeline.memory.session import Placement, Session

__all__ = ["MidTerm", "Placement", "Session"]

SPARE_NOTES = 8  # beyond two for each session


class MidTerm:
    """The sessions of one scope. Not for several threads at once: its owner holds a lock.

    A session that was dropped doesn't come back: whatever is placed under its id later, as when a batch is read a
    second time, changes nothing. Its pages are in no session, and only a batch made of them anew would place them.
    Which sessions had to go depends on retrievals too, so whoever reads a store again repeats ``drop`` where it
    happened, and doesn't ask ``evict`` again.
    """

    __slots__ = (
        "_dropped",
        "_heats",
        "_looked",
        "_next_id",
        "_places",
        "_rarity",
        "_sessions",
        "_settings",
        "_settled_ids",
        "_words",
    )

    def __init__(self, settings: config.MidTerm) -> None:
        self._settings = settings
        self._sessions: dict[int, Session] = {}
        self._places = SeqMap()  # the session of each page
        self._next_id = 0
        self._settled_ids = 0  # sessions from this id on were founded since the last eviction
        self._dropped = column()  # ascending
        self._words = KeywordIndex()
        self._heats = HeatQueue()  # of the sessions with fresh pages
        self._looked = 0.0  # when the hottest was last asked for
        self._rarity: RarityQueue | None = None  # of all sessions, once one had to go

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
        return self._places.get(seq)

    # Placing

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
        scores = np.asarray(cosines, np.float64) + self._words.jaccard(_folded(keywords), session_ids)
        best = scores.max()
        return int(session_ids[scores == best].min()) if best >= self._settings.similarity_threshold else None

    def reserve_id(self) -> int:
        """Return the id for a session that is about to be founded; it is not given out again."""
        self._next_id += 1
        return self._next_id - 1

    def apply(self, placement: Placement, now: float) -> None:
        """Enter a placement: its pages and keywords go into its session, which is founded if it is not there.

        A page that is in a session stays in that one, so applying a placement twice changes nothing. ``now`` is in
        seconds since 1970; a session that gains pages was visited then.
        """
        session = self._sessions.get(placement.session_id) or self._found(placement, now)
        if session is None:
            return
        keywords = _folded(placement.keywords) - session.keywords
        session.keywords |= keywords
        self._words.add(session.session_id, keywords)
        joining = [seq for seq in placement.seqs if self._places.add(seq, session.session_id)]
        for seq in joining:
            insort(session.seqs, seq)
            insort(session.fresh, seq)
        if joining:
            session.interactions += len(joining)
            session.last_visit = max(session.last_visit, now)
            self._heats.mark(session.session_id)

    def _found(self, placement: Placement, now: float) -> Session | None:
        if contains(self._dropped, placement.session_id):
            return None
        session = Session(placement.session_id, placement.summary, placement.timestamp, placement.row, last_visit=now)
        self._sessions[session.session_id] = session
        self._next_id = max(self._next_id, session.session_id + 1)
        self._note_rank(session)
        return session

    def take_over(self, session: Session) -> None:
        """Enter a session that was founded elsewhere, under an id of ``reserve_id``; its pages are in none here."""
        self._adopt(session)
        for seq in session.seqs:
            self._places.add(seq, session.session_id)
        self._note_rank(session)

    def telling_of(self, seqs: Collection[int]) -> list[int]:
        """Return the ids of the sessions that hold one of these pages, or whose summary may tell of one."""
        held = {session_id for seq in seqs if (session_id := self.session_of(seq)) is not None}
        apart = {one.session_id for one in self._sessions.values() if any(seq in seqs for seq in one.tells_of)}
        return sorted(held | apart)

    def set_rows(self, rows: Mapping[int, int]) -> None:
        """Set where the summaries' embeddings are, by session id; ids of sessions that are gone are passed over."""
        for session_id in rows.keys() & self._sessions.keys():
            self._sessions[session_id].row = rows[session_id]

    # Heat

    def visit(self, session_ids: Iterable[int], now: float) -> None:
        """Count a retrieval at ``now`` that matched these sessions; those that are gone by now are passed over."""
        for session_id in session_ids:
            session = self._sessions.get(session_id)
            if session is not None:
                session.visits += 1
                session.accesses += 1
                session.last_visit = max(session.last_visit, now)
                self._reheat(session)

    def set_visits(self, session_id: int, visits: int, last_visit: float, accesses: int) -> None:
        """Set what visits have come to; a session that is gone is passed over."""
        session = self._sessions.get(session_id)
        if session is not None:
            session.visits, session.last_visit, session.accesses = visits, last_visit, accesses
            self._note_rank(session)
            self._reheat(session)

    def heat_of(self, session: Session, now: float) -> float:
        """Return a session's heat at ``now``."""
        settings = self._settings
        return heat(
            session.visits,
            session.interactions,
            (now - session.last_visit) / 3600.0,
            alpha=settings.heat_alpha,
            beta=settings.heat_beta,
            gamma=settings.heat_gamma,
            recency_hours=settings.recency_hours,
        )

    def recency_of(self, session: Session, now: float) -> float:
        """Return how recent a session's last visit is at ``now``, 0 to 1."""
        return recency((now - session.last_visit) / 3600.0, self._settings.recency_hours)

    def hottest(self, now: float) -> tuple[Session, float] | None:
        """Return the hottest session at ``now`` among those with fresh pages, and its heat; None where none has any."""
        if now < self._looked:  # the clock was set back: everything may be hotter than it was
            for session in self._sessions.values():
                self._reheat(session)
        self._looked = now
        found = self._heats.hottest(lambda session_id: self.heat_of(self._sessions[session_id], now))
        return None if found is None else (self._sessions[found[0]], found[1])

    def hot(self, now: float, threshold: float) -> list[tuple[Session, float]]:
        """Return the sessions with fresh pages whose heat at ``now`` reaches ``threshold``, hottest first, with it."""
        self.settle(now)
        sessions = [self._sessions[session_id] for session_id in self._heats.reaching(threshold)]
        heats = [(session, self.heat_of(session, now)) for session in sessions]
        hot = [entry for entry in heats if entry[1] >= threshold]
        return sorted(hot, key=lambda entry: (-entry[1], entry[0].session_id))

    def settle(self, now: float) -> None:
        """Reckon the heat of every session that changed, which is otherwise put off until the hottest is asked for."""
        self._heats.settle(lambda session_id: self.heat_of(self._sessions[session_id], now))

    def analysed(self, seqs: Iterable[int], now: float) -> None:
        """Note that pages were analysed at ``now``: they are fresh no longer, and their sessions cool down."""
        for seq in seqs:
            session = self._sessions.get(-1 if (held := self.session_of(seq)) is None else held)
            if session is not None and remove(session.fresh, seq):
                session.visits = session.interactions = 0
                session.last_visit = now
                self._note_rank(session)  # the clock may have been set back
                self._reheat(session)

    def _reheat(self, session: Session) -> None:
        if session.fresh:
            self._heats.mark(session.session_id)
        else:
            self._heats.discard(session.session_id)

    # Losing

    def evict(self) -> list[Session]:
        """Drop the least frequently used sessions until there are at most ``capacity``; return them.

        Those with the fewest accesses go, of equal ones the one visited longest ago, then the oldest. Sessions founded
        since the last call go last of all: without that, none could enter where all others were retrieved once.
        """
        new_from, self._settled_ids = self._settled_ids, self._next_id
        excess = len(self._sessions) - self._settings.capacity
        if excess <= 0:
            return []
        if self._rarity is None:
            self._rarity = RarityQueue(map(_rank, self._sessions.values()))
        gone = self._rarity.take(excess, self._rank_of, new_from)
        gone += self._rarity.take(excess - len(gone), self._rank_of, self._next_id)
        return [session for session_id in gone if (session := self.drop(session_id)) is not None]

    def _rank_of(self, session_id: int) -> Rank | None:
        session = self._sessions.get(session_id)
        return None if session is None else _rank(session)

    def _note_rank(self, session: Session) -> None:
        if self._rarity is not None:
            self._rarity.note(_rank(session))
            if len(self._rarity) > 2 * len(self._sessions) + SPARE_NOTES:
                self._rarity = None  # full of what is out of date: made anew where one has to go

    def drop(self, session_id: int) -> Session | None:
        """Take a session out for good, and return it; None where it is not there."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return None
        insort(self._dropped, session_id)
        self._heats.discard(session_id)
        self._words.remove(session_id)
        self._places.remove(session.seqs)
        return session

    def remove_page(self, seq: int) -> Session | None:
        """Take a page out; return the session that has lost it, which may be empty now, or None where none had it."""
        session = self._sessions.get(-1 if (held := self.session_of(seq)) is None else held)
        if session is not None:
            self.leave(session, [seq], tells=False)
        return session

    def leave(self, session: Session, seqs: Collection[int], *, tells: bool) -> list[int]:
        """Take pages out of the session that holds them; return those that were fresh.

        Where it ``tells`` of them still, by its summary or keywords, that is noted.
        """
        self._places.remove(seqs)
        fresh = [seq for seq in seqs if remove(session.fresh, seq)]
        for seq in seqs:
            remove(session.seqs, seq)
            if tells and not contains(session.tells_of, seq):
                insort(session.tells_of, seq)
        session.interactions = max(0, session.interactions - len(fresh))
        self._reheat(session)
        return fresh

    def no_longer_fresh(self, session: Session, seqs: Iterable[int]) -> None:
        """Note that pages of a session were analysed before they came there."""
        known = [seq for seq in seqs if remove(session.fresh, seq)]
        session.interactions = max(0, session.interactions - len(known))
        self._reheat(session)

    # Snapshots

    def as_plain(self) -> list[Any]:
        """Return all of it but the rows as msgpack can store it."""
        return [self._next_id, self._dropped.tolist(), [session.as_plain() for session in self._sessions.values()]]

    @classmethod
    def from_plain(cls, plain: Sequence[Any], settings: config.MidTerm) -> MidTerm:
        """Return the sessions that ``as_plain`` was told of, without rows."""
        memory = cls(settings)
        next_id, dropped, sessions = plain
        memory._dropped.extend(dropped)
        for session in map(Session.from_plain, sessions):
            memory._adopt(session)
        memory._settled_ids = memory._next_id = max(next_id, memory._next_id)
        present = memory.sessions
        owners = np.repeat([session.session_id for session in present], [len(session.seqs) for session in present])
        seqs = [np.frombuffer(session.seqs, np.int64) for session in present]
        memory._places.fill(np.concatenate([np.empty(0, np.int64), *seqs]), owners.astype(np.int64))
        return memory

    def _adopt(self, session: Session) -> None:
        self._sessions[session.session_id] = session
        self._next_id = max(self._next_id, session.session_id + 1)
        self._words.add(session.session_id, session.keywords)
        self._reheat(session)


def _rank(session: Session) -> Rank:
    return session.accesses, session.last_visit, session.session_id


def _folded(keywords: Iterable[str]) -> frozenset[str]:
    return frozenset(keyword.casefold() for keyword in keywords)
