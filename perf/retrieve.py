"""What a search takes beside encoding its question, at 10,000 pages of one user."""

from __future__ import annotations

from perf.options import Options
from perf.pipelines import wait_ready
from perf.result import BenchResult, at_most
from perf.searching import search

__all__ = ["run"]

USER = "user"
IDLE_TIMEOUT_S = 3600.0


def run(options: Options) -> BenchResult:
    """Measure ``retrieve``."""
    stream = options.page_stream()
    count = options.size(10_000, 1000)
    pages = [{**page, "user_id": USER} for _, page in zip(range(count), stream, strict=False)]
    with options.store() as folder, options.open(folder, embedding__backend="fake") as pipeline:
        wait_ready(pipeline)
        pipeline.add_many(pages)
        pipeline.wait_idle(IDLE_TIMEOUT_S)
        asked = [pages[number * 7919 % len(pages)] for number in range(options.times(500, 50))]
        figures = search(pipeline, asked).figures(f"{len(pages)} pages", at_most(2))
        return BenchResult("retrieve", pipeline._engine.config.as_dict(), figures)
