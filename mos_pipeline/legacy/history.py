"""A user's memory in one order: each page once, in one session, after the pages that it follows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mos_pipeline.legacy.links import Links, links_of
from mos_pipeline.legacy.model import LegacyPage, LegacySession, LegacyUser, Problem
from mos_pipeline.memory.moments import moment
from mos_pipeline.messages import encode

__all__ = ["History", "HistoryPage", "HistorySession", "history_of"]


class HistoryPage(NamedTuple):
    """A page, once.

    Attributes:
        key: its own id, or ``content_id`` where it has none, or another page has it, too.
        content_id: an id made of what it says, and of how many pages before it say the same.
        in_mid_term: whether a session holds it.
    """

    page: LegacyPage
    key: str
    content_id: str
    in_mid_term: bool


class HistorySession(NamedTuple):
    """A session with the keys of its pages; ``tells_of`` are pages that stand in it, and are in another."""

    session: LegacySession
    pages: tuple[str, ...]
    fresh: tuple[str, ...]
    tells_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """All of it; ``pages`` in the order in which they came."""

    user: LegacyUser
    pages: tuple[HistoryPage, ...]
    sessions: tuple[HistorySession, ...]
    links: Links


@dataclass(slots=True, eq=False)
class _Node:
    """A page on its way into the order; ``homes`` are the sessions that it stands in, by their places."""

    page: LegacyPage
    rank: tuple[bool, float, int]
    homes: list[int]
    key: str = ""
    content_id: str = ""


def history_of(user: LegacyUser, problems: list[Problem]) -> History:
    """Return the history; what can't be taken is appended to ``problems``."""
    nodes, details, short = _nodes(user)
    _name(user.user_id, nodes)
    places = {node.key: at for at, node in enumerate(nodes)}
    wanted = [(places[one], places[other]) for one, other in _linked(nodes) if one in places and other in places]
    ordered = [nodes[at] for at in _order(nodes, [*_steps(details), *_steps([short]), *wanted])]
    pages = tuple(HistoryPage(node.page, node.key, node.content_id, bool(node.homes)) for node in ordered)
    links = links_of([(page.key, page.page) for page in pages], problems)
    return History(user, pages, tuple(_sessions(user, nodes, details, problems)), links)


def _nodes(user: LegacyUser) -> tuple[list[_Node], list[list[int]], list[int]]:
    """Return the pages, each once; for each session the places of its pages among them; and for short-term memory."""
    nodes, known, details = list[_Node](), dict[object, int](), list[list[int]]()
    for at, session in enumerate(user.sessions):
        mine, seen, last = list[int](), Counter[object](), 0.0
        for page in session.pages:
            seen[page.content] += 1
            # Without an id, what says the same in another session is the same page; in this one it is another.
            token = (page.page_id, page.content) if page.page_id else (seen[page.content], page.content)
            last = _seconds(page.timestamp, last)
            if token not in known:
                known[token] = len(nodes)
                nodes.append(_Node(page, (False, last, len(nodes)), []))
            node = nodes[known[token]]
            node.page = replace(node.page, analyzed=node.page.analyzed or page.analyzed)
            if at not in node.homes:
                node.homes.append(at)
                mine.append(known[token])
        details.append(mine)
    waiting: dict[object, list[int]] = {}
    for at, node in enumerate(nodes):
        waiting.setdefault(node.page.content, []).append(at)
    short = list[int]()
    for page in user.short:
        same = waiting.get(page.content)
        if same:  # of both memories
            short.append(same.pop(0))
        else:
            short.append(len(nodes))
            nodes.append(_Node(page, (True, 0.0, len(nodes)), []))
    return nodes, details, short


def _seconds(timestamp: str, otherwise: float) -> float:
    found = moment(timestamp) if timestamp else None
    try:
        return otherwise if found is None else found.timestamp()
    except (OverflowError, ValueError):
        return otherwise


def _name(user_id: str, nodes: list[_Node]) -> None:
    taken, said = set[str](), Counter[object]()
    for node in nodes:
        number = said[node.page.content]
        said[node.page.content] += 1
        digest = hashlib.sha256(encode([user_id, *node.page.content, number])).hexdigest()
        node.content_id = f"memoryos-{digest[:24]}"
        own = node.page.page_id
        node.key = own if own and own not in taken else node.content_id
        taken.add(node.key)


def _linked(nodes: list[_Node]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if node.page.page_id:
            yield node.page.before, node.page.page_id
            yield node.page.page_id, node.page.after


def _steps(lists: list[list[int]]) -> Iterator[tuple[int, int]]:
    for places in lists:
        yield from pairwise(places)


def _order(nodes: list[_Node], follows: list[tuple[int, int]]) -> list[int]:
    """Return the places in an order in which each comes after those it follows, and otherwise by rank.

    Where some follow each other in a circle, which only damage explains, the first by rank begins.
    """
    after: list[set[int]] = [set() for _ in nodes]
    for earlier, later in follows:
        if earlier != later:
            after[earlier].add(later)
    waits = Counter(later for laters in after for later in laters)
    free = [(node.rank, at) for at, node in enumerate(nodes) if not waits[at]]
    heapify(free)
    by_rank = iter(sorted(range(len(nodes)), key=lambda at: nodes[at].rank))
    found, done = list[int](), set[int]()
    while len(found) < len(nodes):
        at = heappop(free)[1] if free else next(place for place in by_rank if place not in done)
        if at in done:
            continue
        found.append(at)
        done.add(at)
        for later in after[at]:
            waits[later] -= 1
            if not waits[later] and later not in done:
                heappush(free, (nodes[later].rank, later))
    return found


def _sessions(
    user: LegacyUser, nodes: list[_Node], details: list[list[int]], problems: list[Problem]
) -> Iterator[HistorySession]:
    home = {at: _home(user, node) for at, node in enumerate(nodes) if node.homes}
    _fill_empty(user, nodes, details, home)
    for number, (session, places) in enumerate(zip(user.sessions, details, strict=True)):
        mine = [at for at in places if home[at] == number]
        if not mine:
            problems.append(Problem(*session.place, "holds no page that is not in another session, too"))
            continue
        yield HistorySession(
            session,
            tuple(nodes[at].key for at in mine),
            tuple(nodes[at].key for at in mine if not nodes[at].page.analyzed),
            tuple(nodes[at].key for at in places if home[at] != number),
        )


def _home(user: LegacyUser, node: _Node) -> int:
    """Return the session that a page belongs to: of several, the one whose summary it is nearest to."""
    return max(node.homes, key=lambda number: (_cosine(node.page, user.sessions[number]), -number))


def _fill_empty(user: LegacyUser, nodes: list[_Node], details: list[list[int]], home: dict[int, int]) -> None:
    """Leave no session without a page where another can spare one."""
    sizes = Counter(home.values())
    for number, places in enumerate(details):
        spare = [at for at in places if sizes[home[at]] > 1]
        if not sizes[number] and spare:
            at = max(spare, key=lambda at: _cosine(nodes[at].page, user.sessions[number]))
            sizes[home[at]] -= 1
            home[at] = number
            sizes[number] += 1


def _cosine(page: LegacyPage, session: LegacySession) -> float:
    if page.vector is None or session.vector is None or len(page.vector) != len(session.vector):
        return -1.0
    return float(page.vector.astype(np.float32) @ session.vector.astype(np.float32))
