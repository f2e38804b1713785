"""Finding pages: the query's vector from the embedder, its words, and both searches joined. In the caller's thread."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Retrieval as RetrievalConfig
from mos_pipeline.engine.coordinator import Coordinator
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.intake import Intake
from mos_pipeline.engine.processing import EMBEDDER, Processing
from mos_pipeline.memory.bm25 import Shape
from mos_pipeline.memory.ranking import Dense, Ranked, Weights, join, two_level
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.memory.word_index import WordScores
from mos_pipeline.memory.words import UNIT, query_terms
from mos_pipeline.messages import Hit, Page, Retrieved, decode_record
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.reading import PageReader

__all__ = ["Retrieval"]


class _QueryVector:
    """A query's vector on its way from the embedder."""

    def __init__(self, desk: Desk, query: str) -> None:
        self._came = threading.Event()
        self._vector: npt.NDArray[np.float16] | None = None
        self._desk = desk
        self._unit_id = desk.submit(EMBEDDER, "query", [query], self._take, urgent=True, direct=True)

    def _take(self, outcome: Outcome) -> None:
        if outcome.fate == "done":
            self._vector = np.frombuffer(outcome.result, np.float16)
        self._came.set()

    def wait(self, deadline: float) -> npt.NDArray[np.float16] | None:
        if not self._came.wait(max(0.0, deadline - time.monotonic())):
            self._desk.withdraw(EMBEDDER, self._unit_id)  # or a model that loads slowly would begin with old questions
        return self._vector


class Retrieval:
    """Answers queries about one scope at a time."""

    def __init__(
        self,
        config: RetrievalConfig,
        state: MemoryState,
        intake: Intake,
        coordinator: Coordinator,
        processing: Processing,
        reader: PageReader,
        desk: Desk,
    ) -> None:
        self._config = config
        self._state = state
        self._intake = intake
        self._coordinator = coordinator
        self._processing = processing
        self._reader = reader
        self._desk = desk
        self._shape = Shape(UNIT * config.bm25_k1, config.bm25_b, UNIT * config.window_words)
        self._weights = Weights(config.dense_weight, config.words_weight, config.window_weight, config.sitting_weight)

    def retrieve(self, scope: Scope, query: str, k: int, timeout_s: float) -> Retrieved:
        """Return the ``k`` best pages of ``scope``, and its latest ones."""
        deadline = time.monotonic() + timeout_s
        with self._intake.lock:
            latest = scope.ring.latest()  # before catching up: what is read below must be known by then
        asked = _QueryVector(self._desk, query) if self._desk.supervisor is not None else None
        with self._coordinator.lock:  # while the embedder is at it
            self._coordinator.catch_up(scope)
            words = scope.words.view(self._shape)
        found = words.search(query_terms(query))
        vector = asked.wait(deadline) if asked is not None else None
        if not self._processing.ready:  # not started, or a model other than the store's: never compare the two
            vector = None
        ranked = self._ranked(scope, vector, found, k)
        return Retrieved(self._hits(ranked), self.pages(latest), degraded=vector is None)

    def _ranked(self, scope: Scope, vector: npt.NDArray[np.float16] | None, words: WordScores, k: int) -> list[Ranked]:
        pool = self._processing.pool
        if vector is None or pool is None:
            return join(words, Dense.none(), self._weights, k=k)
        dense = Dense(*pool.scores(scope.page_rows, vector))
        if self._config.method == "two-level":
            sessions, relevance = pool.scores(scope.session_rows, vector)
            return two_level(self._pages_of(scope, sessions), relevance, dense, k=k)
        return join(words, dense, self._weights, k=k)

    def _pages_of(self, scope: Scope, session_ids: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        with self._coordinator.lock:
            sessions = [scope.mid_term.get(session_id) for session_id in session_ids.tolist()]
            return [np.array(session.seqs if session is not None else (), np.int64) for session in sessions]

    def _hits(self, ranked: list[Ranked]) -> list[Hit]:
        pages = self.pages([hit.doc for hit in ranked])
        return [
            Hit(hit.score, page, hit.dense, hit.words, self._state.chains.overview(hit.doc))
            for hit, page in zip(ranked, pages, strict=True)
        ]

    def pages(self, seqs: list[int]) -> list[Page]:
        """Return pages by sequence number."""
        return [self._page(seq, record) for seq, record in zip(seqs, self._reader.read_many(seqs), strict=True)]

    def _page(self, seq: int, record: bytes) -> Page:
        fields = decode_record(record)
        return Page(
            self._state.ids.id_of(seq, fields.page_id),
            fields.user_id,
            fields.assistant_id,
            fields.user_input,
            fields.agent_response,
            fields.timestamp,
            fields.metadata or {},
        )
