"""Finding: the query's vector from the embedder, its words, both searches joined, and what is known of the user.

In the caller's thread. Nothing here changes the state; which sessions were matched is left as a note for the
coordinator.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Retrieval as RetrievalConfig
from mos_pipeline.engine.asking import Ask
from mos_pipeline.engine.browsing import Browsing
from mos_pipeline.engine.reading import Gate, NoteVisits, Vectors
from mos_pipeline.memory.bm25 import Shape
from mos_pipeline.memory.ranking import Dense, Ranked, Weights, join, two_level
from mos_pipeline.memory.selection import Budget, Filter
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.word_index import WordScores
from mos_pipeline.memory.words import UNIT, query_terms
from mos_pipeline.messages import Hit, KnowledgeHit, Parts, Retrieved

__all__ = ["Question", "Retrieval"]

Vector = npt.NDArray[np.float16]

Ranking = Callable[[int], list[Ranked]]
MOST_READ = 128  # pages at once


class Question(NamedTuple):
    """What is asked for.

    Attributes:
        query: the text.
        k: how many pages; as many as the budget holds where None.
        filter: what pages must be like.
        max_tokens: the budget of pages and overviews; none where None.
        in_time_order: whether the pages come in the order of acceptance, not best first.
        explain: whether each page comes with the parts of its score.
        without: numbers of pages that are not wanted.
    """

    query: str
    k: int | None
    filter: Filter = Filter()
    max_tokens: int | None = None
    in_time_order: bool = False
    explain: bool = False
    without: frozenset[int] = frozenset()


class Retrieval:
    """Answers queries about one scope at a time."""

    def __init__(
        self,
        config: RetrievalConfig,
        state: MemoryState,
        ring_lock: threading.Lock,
        gate: Gate,
        vectors: Vectors,
        note_visits: NoteVisits,
        browsing: Browsing,
        ask: Ask,
    ) -> None:
        """Search ``state``; ``ring_lock`` is held by whoever changes its rings."""
        self._config = config
        self._state = state
        self._ring_lock = ring_lock
        self._gate = gate
        self._vectors = vectors
        self._note_visits = note_visits
        self._browsing = browsing
        self._ask = ask
        self._shape = Shape(UNIT * config.bm25_k1, config.bm25_b, UNIT * config.window_words)
        self._weights = Weights(config.dense_weight, config.words_weight, config.window_weight, config.sitting_weight)

    def retrieve(self, scope: Scope, question: Question, timeout_s: float) -> Retrieved:
        """Return what ``scope`` has to tell about a question, and its latest pages."""
        deadline = time.monotonic() + timeout_s
        with self._ring_lock:
            latest = scope.ring.latest()  # before catching up: what is read below must be known by then
        asked = self._ask(question.query)
        with self._gate.lock:  # while the embedder is at it
            self._gate.catch_up(scope)
            words = scope.words.view(self._shape)
        found = words.search(query_terms(question.query))
        vector = asked.wait(deadline) if asked is not None else None
        if not self._vectors.ready:  # not started, or a model other than the store's: never compare the two
            vector = None
        hits = self._hits(scope, question, self._ranking(scope, vector, found), found.limit)
        return Retrieved(
            hits,
            self._browsing.pages(latest),
            degraded=vector is None,
            user_knowledge=self._knowledge(scope, vector, of_user=True),
            assistant_knowledge=self._knowledge(scope, vector, of_user=False),
            profile=scope.long_term.profile.text,
            overviews=[text for text in dict.fromkeys(hit.overview for hit in hits) if text],
        )

    def _ranking(self, scope: Scope, vector: Vector | None, words: WordScores) -> Ranking:
        """Return what gives the best pages, as many as it is asked for."""
        if vector is None:
            return lambda k: join(words, Dense.none(), self._weights, k=k)
        dense = Dense(*self._vectors.pool.scores(scope.page_rows, vector))
        if self._config.method == "two-level" and not scope.lifting:  # its sessions may have no vectors
            sessions, relevance = self._vectors.pool.scores(scope.session_rows, vector)
            pages = self._pages_of(scope, sessions)
            return lambda k: two_level(pages, relevance, dense, k=k)
        return lambda k: join(words, dense, self._weights, k=k)

    def far_pages(self, scope: Scope, query: str, lowest: float, most: int, timeout_s: float) -> frozenset[int]:
        """Return the pages of sessions that are far from ``query``.

        Near are the ``most`` sessions whose summaries have the highest cosines, of those with ``lowest`` or more. All
        are, where the query's vector does not come in time.
        """
        asked = self._ask(query)
        vector = asked.wait(time.monotonic() + timeout_s) if asked is not None else None
        if vector is None or not self._vectors.ready:
            return frozenset()
        session_ids, cosines = self._vectors.pool.scores(scope.session_rows, vector)
        near = {int(session_ids[place]) for place in np.argsort(-cosines)[:most] if cosines[place] >= lowest}
        with self._gate.lock:
            far = [one.seqs.tolist() for one in scope.mid_term.sessions if one.session_id not in near]
        return frozenset(seq for seqs in far for seq in seqs)

    def _pages_of(self, scope: Scope, session_ids: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        with self._gate.lock:
            sessions = [scope.mid_term.get(session_id) for session_id in session_ids.tolist()]
            return [np.array(session.seqs if session is not None else (), np.int64) for session in sessions]

    def _hits(self, scope: Scope, question: Question, ranking: Ranking, limit: float) -> list[Hit]:
        """Return the best that pass, and leave a note which sessions they belong to."""
        budget, chosen = Budget(question.max_tokens), list[tuple[int, Hit]]()
        for part in self._passing(_parts_of(ranking, question.k or self._config.k), question):
            for seq, hit in self._read(scope, part, limit if question.explain else None):
                if len(chosen) == question.k:
                    break
                if budget.takes((hit.page.user_input, hit.page.agent_response), hit.overview):
                    chosen.append((seq, hit))
            if len(chosen) == question.k or budget.spent:
                break
        if question.in_time_order:
            chosen.sort(key=itemgetter(0))
        self._note_visits(scope, {hit.session_id for _, hit in chosen if hit.session_id is not None})
        return [hit for _, hit in chosen]

    def _passing(self, parts: Iterable[list[Ranked]], question: Question) -> Iterator[list[Ranked]]:
        """Yield what passes, in the order of the ranking, at most ``MOST_READ`` pages at once."""
        for part in parts:
            left = [one for one in part if one.doc not in question.without] if question.without else part
            left = left if question.filter.empty else self._filtered(left, question.filter)
            for start in range(0, len(left), MOST_READ):
                yield left[start : start + MOST_READ]

    def _filtered(self, ranked: list[Ranked], wanted: Filter) -> list[Ranked]:
        """Return what passes. Pages are read in the order of their numbers, so that each frame is unpacked once."""
        docs, passing = sorted(one.doc for one in ranked), set[int]()
        for start in range(0, len(docs), MOST_READ):
            part = docs[start : start + MOST_READ]
            for doc, page in zip(part, self._browsing.pages_left(part), strict=True):
                if page is not None and wanted.passes(page.timestamp, page.metadata):
                    passing.add(doc)
        return [one for one in ranked if one.doc in passing]

    def _read(self, scope: Scope, ranked: list[Ranked], limit: float | None) -> list[tuple[int, Hit]]:
        """Return pages with all that is told of them; those forgotten since they were ranked are left out."""
        pages = self._browsing.pages_left([one.doc for one in ranked])
        left = [(one, page) for one, page in zip(ranked, pages, strict=True) if page is not None]
        with self._gate.lock:
            told = [(self._state.chains.overview(one.doc), scope.mid_term.session_of(one.doc)) for one, _ in left]
        return [
            (one.doc, Hit(one.score, page, one.dense, one.words, *about, None if limit is None else _parts(one, limit)))
            for (one, page), about in zip(left, told, strict=True)
        ]

    def _knowledge(self, scope: Scope, vector: Vector | None, *, of_user: bool) -> list[KnowledgeHit]:
        if vector is None:
            return []
        tags, cosines = self._vectors.pool.scores(scope.fact_rows(of_user=of_user), vector)
        near = cosines >= self._config.knowledge_cosine  # of the facts that many users share most are not
        tags, cosines = tags[near], cosines[near]
        order = np.lexsort((-tags, -cosines))  # of equal ones the newer first, whatever rows they lie in
        found = zip(cosines[order].tolist(), tags[order].tolist(), strict=True)
        return self._browsing.knowledge_hits(scope, found, of_user=of_user, limit=self._config.knowledge_k)


def _parts_of(ranking: Ranking, first: int) -> Iterator[list[Ranked]]:
    """Yield all pages, best first: ``first`` of them at first, and more then, as filters pass over some."""
    ranked, size = ranking(first), first
    yield ranked
    while len(ranked) == size:
        ranked, size, done = ranking(8 * size), 8 * size, size
        yield ranked[done:]


def _parts(ranked: Ranked, limit: float) -> Parts:
    return Parts(ranked.dense, ranked.words, ranked.window, ranked.sitting, limit)
