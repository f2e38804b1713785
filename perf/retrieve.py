"""What a search takes beside encoding its question, at 10,000 pages of one user.

The fake backend takes no time for a question, but the way to the embedder and back stays. A bare embedding of each
question is measured right before or after its search, and the difference of the medians is what searching adds: words,
vectors, joining, and reading the pages found from disk.
"""

from __future__ import annotations

import time

from mos_pipeline import MemoryPipeline
from perf.options import Options
from perf.pipelines import embed_query, wait_ready
from perf.result import BenchResult, Figure, at_most
from perf.texts import Page, question
from perf.timing import median, percentile

__all__ = ["run"]

USER = "user"
MS = 1000.0
WARM_UP = 10
IDLE_TIMEOUT_S = 3600.0


def run(options: Options) -> BenchResult:
    """Measure ``retrieve``."""
    stream = options.page_stream()
    count = options.size(10_000, 1000)
    pages = [{**page, "user_id": USER} for _, page in zip(range(count), stream, strict=False)]
    with options.store() as folder, MemoryPipeline.open(folder, embedding__backend="fake") as pipeline:
        wait_ready(pipeline)
        pipeline.add_many(pages)
        pipeline.wait_idle(IDLE_TIMEOUT_S)
        searches, trips = _measure(pipeline, pages, options.times(500, 50))
        return BenchResult("retrieve", pipeline._engine.config.as_dict(), _figures(searches, trips, len(pages)))


def _measure(pipeline: MemoryPipeline, pages: list[Page], count: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of searches and of bare embeddings, both of the same questions in turn."""
    searches, trips = list[float](), list[float]()

    def search(query: str) -> None:
        pipeline.retrieve(USER, query)

    def trip(query: str) -> None:
        embed_query(pipeline, query)

    for number in range(-WARM_UP, count):
        query = question(pages[number * 7919 % len(pages)], number)
        turns = [(searches, search), (trips, trip)]
        for samples, call in turns if number % 2 else turns[::-1]:
            begun = time.perf_counter()
            call(query)
            if number >= 0:
                samples.append(MS * (time.perf_counter() - begun))
    return searches, trips


def _figures(searches: list[float], trips: list[float], pages: int) -> list[Figure]:
    trip = median(trips)
    beyond = Figure(
        f"retrieve at {pages} pages, beyond encoding",
        "ms",
        len(searches),
        median(searches) - trip,
        percentile(searches, 0.99) - trip,
        max(searches) - trip,
        (at_most(2),),
        "retrieve less the median way to the embedder and back",
    )
    return [
        Figure.of(f"retrieve at {pages} pages, fake backend", "ms", searches),
        Figure.of("a query to the embedder and back", "ms", trips),
        beyond,
    ]
