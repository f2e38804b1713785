"""The embedder's process: texts in, float16 vectors out, into shared memory.

Three kinds of unit:

    embed   payload [texts, [[slab name, row in it], …]]; text i's vector is written to row i; the result is the number
            of texts, once all are written
    ahead   the same, for what shall not wait behind a bulk load
    query   payload [text]; the result is the vector, float16 bytes
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mos_pipeline import config
from mos_pipeline.runtime.shared_memory import attach
from mos_pipeline.runtime.slabs import vectors_of
from mos_pipeline.runtime.worker import Report
from mos_pipeline.stages.backend import Backend, DividingBackend, Prepared, Vectors, readable
from mos_pipeline.stages.batching import Batcher, CostModel, Item
from mos_pipeline.stages.static_tier import StaticHome
from mos_pipeline.stages.tuning import FIRST_PIECES, Tunable, choose_pieces, choose_threads
from mos_pipeline.stages.variants import EXPORTED

__all__ = ["EmbedStage"]

logger = logging.getLogger(__name__)

LOOKAHEAD = 256  # texts split into word pieces before their turn; many more would make queries wait
WARM_UP_SHAPES = ((1, 6), (1, 62), (4, 62), (8, 62), (4, 126))  # texts, words of one piece each
WARM_UP_ROUNDS = 3
TRIED_WORDS = 62  # of the texts that batches are measured with: with what stands around them about what a page has
TRIED_TEXTS = 8
MIXED_WORDS = (14, 30, 46, 62, 94, 126)  # where texts of all lengths come together
QUESTION_WORDS = range(6, 63, 8)  # with what stands around them one of each length that questions are filled up to


@dataclass(slots=True)
class _Unit:
    unit_id: int
    texts: Sequence[str]
    rows: Sequence[tuple[str, int]]
    query: bool
    ahead: bool = False
    items: list[Prepared] = field(default_factory=list)
    left: int = 0


class EmbedStage:
    """Embeds units of texts in batches that mix them, and queries before everything.

    Args:
        clock: seconds that never go back.
        backend: used instead of the one that ``settings`` name.
        digest: of the store's model, where it has one: which of several quantised forms in the cache is meant.
        home: where the store keeps its static model, if it may have one.
    """

    def __init__(
        self,
        settings: config.Embedding,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend | None = None,
        digest: str = "",
        home: StaticHome | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._backend = backend or _backend(settings, digest, home)
        self._cost = CostModel()
        pieces = settings.batch_word_pieces or FIRST_PIECES
        self._batcher = Batcher(pieces, settings.query_window_s, settings.query_batch_ms / 1000, self._cost, clock)
        self._queries: deque[_Unit] = deque()  # accepted, not yet split into word pieces
        self._ahead: deque[_Unit] = deque()
        self._fresh: deque[_Unit] = deque()
        self._units: dict[int, _Unit] = {}  # with the batcher
        self._slabs: dict[str, Vectors] = {}
        self._dimension = 0
        self._taken: Callable[[int], int] = int  # word pieces that are computed for a text of so many

    def prepare(self) -> dict[str, Any]:
        """Load and warm up the model, choose threads and batches that suit the machine, and measure what batches take.

        Returns:
            what ``Backend.load`` does, the vectors' identity; ``"threads"``, ``"batch_word_pieces"`` of a full batch of
            pages, and its ``"ms_per_batch"``.

        Raises:
            WorkerError: the model is nowhere to be found, or can't be loaded.
        """
        info = self._backend.load()
        self._dimension = info["dimension"]
        if isinstance(self._backend, DividingBackend) and self._backend.divides:
            self._batcher.padded, self._taken = False, self._backend.taken
        if isinstance(self._backend, Tunable):
            info = {**info, **self._tuned(self._backend)}
        self._cost.fit(self._measured())
        pieces = self._batcher.batch_pieces
        told = {"batch_word_pieces": pieces, "ms_per_batch": round(self._cost.seconds(pieces) * 1000, 1)}
        logger.info("batches of %d word pieces take %.1f ms", pieces, told["ms_per_batch"])
        return {**info, **told}

    def _tuned(self, backend: Tunable) -> dict[str, Any]:
        """Choose what the settings leave open; return the number of threads."""
        some = backend.prepare([_words(TRIED_WORDS)] * TRIED_TEXTS)
        given = self._settings.threads
        counts = (given,) if given else backend.threads_to_try(len(os.sched_getaffinity(0)))
        threads = choose_threads(backend, counts, lambda: self._timed(some)[1])
        if not self._settings.batch_word_pieces:
            items = some[:1] if self._batcher.padded else self._mixed()
            self._batcher.batch_pieces = choose_pieces(lambda pieces: self._seconds_for(items, pieces))
        return {"threads": threads}

    def _seconds_for(self, items: Sequence[Prepared], pieces: int) -> float:
        """Return the seconds that ``pieces`` word pieces take, in a batch of ``items`` again and again."""
        batch = self._as_many(items, pieces)
        return self._timed(batch)[1] * pieces / self._pieces(batch)

    def _measured(self) -> list[tuple[int, float]]:
        """Return what batches of a few sizes take: word pieces as ``_pieces`` counts them, and seconds."""
        shapes = [self._backend.prepare([_words(words)] * count) for count, words in WARM_UP_SHAPES]
        if not self._batcher.padded:
            shapes.append(self._as_many(self._mixed(), self._batcher.batch_pieces))
            questions = self._backend.prepare(list(map(_words, QUESTION_WORDS)))
            for item in questions * WARM_UP_ROUNDS:
                self._timed([item])
        rounds = [[self._timed(items)[1] for items in shapes] for _ in range(WARM_UP_ROUNDS)]
        # The quickest of a few: the first runs pay for memory and code that later ones find ready.
        quickest = map(min, zip(*rounds, strict=True))
        return [(self._pieces(items), seconds) for items, seconds in zip(shapes, quickest, strict=True)]

    def _mixed(self) -> list[Prepared]:
        return self._backend.prepare(list(map(_words, MIXED_WORDS)))

    def _as_many(self, items: Sequence[Prepared], pieces: int) -> list[Prepared]:
        """Return ``items``, again and again, of so many word pieces together; at least one."""
        found, total = list[Prepared](), 0
        for item in itertools.cycle(items):
            total += self._taken(item.length)
            if found and total > pieces:
                break
            found.append(item)
        return found

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        """Take one unit."""
        if kind == "query":
            self._batcher.query_came()
            self._queries.append(_Unit(unit_id, payload, (), query=True))
        elif kind in ("embed", "ahead"):
            texts, rows = payload
            ahead = kind == "ahead"
            (self._ahead if ahead else self._fresh).append(_Unit(unit_id, texts, rows, query=False, ahead=ahead))
        else:
            raise ValueError(f"the embedder does not know units of kind {kind!r}")

    @property
    def pending(self) -> bool:
        """Is there accepted work that is not done?"""
        return bool(self._queries or self._ahead or self._fresh or self._units)

    def step(self, report: Report) -> None:
        """Compute one batch, of queries where there are any."""
        while self._queries:
            self._split(self._queries.popleft(), report)
        enough = 1 if self._batcher.queries else LOOKAHEAD
        while (fresh := self._ahead or self._fresh) and len(self._batcher) < enough:
            self._split(fresh.popleft(), report)
        batch = self._batcher.next()
        if batch:
            self._compute(batch, report)

    def close(self) -> None:
        """Let go of the shared memory."""
        self._slabs.clear()

    def _split(self, unit: _Unit, report: Report) -> None:
        """Split a unit's texts into word pieces and hand it to the batcher."""
        try:
            texts = [readable(text, self._settings.max_chars) for text in unit.texts]
            unit.items = self._backend.prepare(texts, query=unit.query)
            if not unit.query and len(unit.rows) != len(unit.items):
                raise ValueError(f"{len(unit.rows)} rows for {len(unit.items)} texts")
        except MemoryError:
            raise  # no fault of the text's: this process ends, and the next one begins with all the memory there is
        except Exception as error:  # noqa: BLE001  (the unit's edge: whatever a text does, the others go on)
            self._refuse(unit, error, report)
            return
        unit.left = len(unit.items)
        if not unit.left:
            report.done(unit.unit_id, 0)
            return
        self._units[unit.unit_id] = unit
        if unit.query:
            self._batcher.add_query(unit.unit_id, self._taken(unit.items[0].length))
        else:
            lengths = [self._taken(item.length) for item in unit.items]
            self._batcher.add(unit.unit_id, lengths, ahead=unit.ahead)

    def _compute(self, batch: list[Item], report: Report) -> None:
        unit_ids = list(dict.fromkeys(item.unit for item in batch))
        report.started(unit_ids)
        prepared = [self._units[item.unit].items[item.text] for item in batch]
        try:
            vectors, seconds = self._timed(prepared)
            self._cost.observe(self._pieces(prepared), seconds)
            self._write(batch, vectors)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (as above)
            if len(unit_ids) == 1:
                self._refuse(self._units[unit_ids[0]], error, report)
                return
            logger.info("a batch of %d units failed (%s); trying them one by one", len(unit_ids), error)
            for unit_id in unit_ids:
                self._compute([item for item in batch if item.unit == unit_id], report)
        else:
            self._complete(batch, vectors, report)

    def _write(self, batch: list[Item], vectors: Vectors) -> None:
        for item, vector in zip(batch, vectors, strict=True):
            unit = self._units[item.unit]
            if not unit.query:
                slab, row = unit.rows[item.text]
                self._slab(slab)[row] = vector

    def _complete(self, batch: list[Item], vectors: Vectors, report: Report) -> None:
        for item, vector in zip(batch, vectors, strict=True):
            unit = self._units[item.unit]
            unit.left -= 1
            if not unit.left:
                del self._units[item.unit]
                report.done(item.unit, vector.tobytes() if unit.query else len(unit.texts))

    def _slab(self, name: str) -> Vectors:
        slab = self._slabs.get(name)
        if slab is None:
            slab = self._slabs[name] = vectors_of(attach(name), self._dimension)
        return slab

    def _pieces(self, items: Sequence[Prepared]) -> int:
        """Return how many word pieces are computed for a batch, those that it is padded with included."""
        lengths = [self._taken(item.length) for item in items]
        return len(items) * max(lengths) if self._batcher.padded else sum(lengths)

    def _timed(self, items: Sequence[Prepared]) -> tuple[Vectors, float]:
        begun = self._clock()
        vectors = self._backend.encode(items)
        return vectors, self._clock() - begun

    def _refuse(self, unit: _Unit, error: Exception, report: Report) -> None:
        logger.warning("unit %d of %d texts can't be embedded", unit.unit_id, len(unit.texts), exc_info=error)
        self._units.pop(unit.unit_id, None)
        self._batcher.drop(unit.unit_id)
        report.failed(unit.unit_id, f"{type(error).__name__}: {error}")


def _backend(settings: config.Embedding, digest: str, home: StaticHome | None) -> Backend:
    if settings.backend == "fake":
        from mos_pipeline.stages.fake_backend import FakeBackend

        return FakeBackend(settings)
    if settings.tier == "static":
        from mos_pipeline.stages.static_backend import StaticBackend

        return StaticBackend(settings, home)
    if settings.backend in EXPORTED:
        from mos_pipeline.stages.variant_backend import VariantBackend

        return VariantBackend(settings, digest)
    from mos_pipeline.stages.sentence_transformer import SentenceTransformerBackend

    return SentenceTransformerBackend(settings)


def _words(count: int) -> str:
    return " ".join(["the"] * count)  # a word piece each
