"""What it costs to look for equal texts where there are none, and what one costs that is found.

The coordinator's side of the embedder is asked for vectors in batches, with an embedder that has all of them at once:
with the table of known texts as it is by default, and without one, in turns on the same texts.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, cast

from mos_pipeline.config import Config, Embedding
from mos_pipeline.engine import embedding
from mos_pipeline.engine.desk import Answer, Desk
from mos_pipeline.memory.known_texts import KnownTexts
from mos_pipeline.messages import embedded_text
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.runtime.vector_pool import VectorPool
from perf.options import Options
from perf.result import BenchResult, Figure, at_most
from perf.texts import synthetic_pages
from perf.timing import median

__all__ = ["run"]

US = 1e6
DIMENSION = 384
BATCH = 9
OWNERS = 50
MOST_US = 3.0  # a page, where no two texts are equal
MOST_BYTES = 320.0


def run(options: Options) -> BenchResult:
    """Measure both ways in turns."""
    pages = islice(synthetic_pages(), options.size(9_000, 900))
    texts = [embedded_text(page["user_input"], page["agent_response"]) for page in pages]
    costs, found, rounds = list[float](), list[float](), options.times(30, 3)
    _spent(Embedding(), texts)  # the first time pays for code that later ones find ready
    for _ in range(rounds):
        with_table, again = _spent(Embedding(), texts)
        without, _ = _spent(Embedding(known_texts=0), texts)
        costs.append(US * (with_table - without) / len(texts))
        found.append(US * again / len(texts))
    name = "looking for an equal text in vain, for a page"
    note = f"{rounds} rounds of {len(texts)} pages, each with the table less the same without"
    figures = [
        Figure(name, "µs", rounds, median(costs), aims=(at_most(MOST_US),), note=note),
        Figure.of("a vector for a page whose text is known", "µs", found),
        Figure("memory of a known text", "bytes", 1, _memory(), aims=(at_most(MOST_BYTES),)),
    ]
    return BenchResult("equal", {"embedding": Config().as_dict()["embedding"], "batch": BATCH}, figures)


class _Desk:
    """Has everything embedded as soon as it is asked to; the pool's rows stay as they are."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        self._answers: list[Answer] = []

    def submit(self, _role: str, _kind: str, _payload: Any, answer: Answer, *, urgent: bool) -> int:
        self._answers.append(answer)
        return int(urgent)

    def soon(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def answer(self) -> None:
        while self._answers:
            self._answers.pop()(Outcome(1, "done"))
        while self._calls:
            self._calls.pop()()


def _spent(settings: Embedding, texts: Sequence[str]) -> tuple[float, float]:
    """Return the seconds of work for vectors of ``texts``, and for those of the same texts again."""
    desk, pool = _Desk(), VectorPool(DIMENSION, settings.slab_bytes, private=True)
    side = embedding.Embedding(cast(Desk, desk), settings)
    side.provide(pool)

    def send() -> None:
        for number, start in enumerate(range(0, len(texts), BATCH)):
            side.send(number % OWNERS, texts[start : start + BATCH], lambda *_: None)
            desk.answer()

    try:
        return _busy(send), _busy(send)
    finally:
        side.close()


def _busy(call: Callable[[], object]) -> float:
    """Return the seconds of processor time that ``call()`` takes, so that other processes count less."""
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


def _memory() -> float:
    """Return the bytes that each text of a full table takes, after as many others have come and gone."""
    limit = Embedding().known_texts
    tracemalloc.start()
    try:
        table = KnownTexts(limit)
        for number in range(2 * limit):
            table.enter((number * 0x9E3779B97F4A7C15) % (1 << 64) or 1, 300 + number)
        return tracemalloc.get_traced_memory()[0] / limit
    finally:
        tracemalloc.stop()
