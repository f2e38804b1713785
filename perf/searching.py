"""What searches take beside encoding their questions.

The fake backend takes no time for a question, but the way to the embedder and back stays. A bare embedding of each
question is measured right before or after its search, and the difference of the medians is what searching adds: words,
vectors, joining, and reading the pages found from disk.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from mos_pipeline import MemoryPipeline
from perf.pipelines import embed_query
from perf.result import Aim, Figure
from perf.texts import Page, question
from perf.timing import median, percentile

__all__ = ["MS", "Searches", "search"]

MS = 1000.0
WARM_UP = 10


class Searches(NamedTuple):
    """Milliseconds of searches, and of bare embeddings of the same questions in turn."""

    searches: list[float]
    trips: list[float]

    def figures(self, where: str, *aims: Aim) -> list[Figure]:
        """Return the figures of searches at ``where``; ``aims`` are those of what searching adds."""
        trip = median(self.trips)
        beyond = Figure(
            f"retrieve at {where}, beyond encoding",
            "ms",
            len(self.searches),
            median(self.searches) - trip,
            percentile(self.searches, 0.99) - trip,
            max(self.searches) - trip,
            aims,
            "retrieve less the median way to the embedder and back",
        )
        return [
            Figure.of(f"retrieve at {where}, fake backend", "ms", self.searches),
            Figure.of("a query to the embedder and back", "ms", self.trips),
            beyond,
        ]


def search(pipeline: MemoryPipeline, asked: Sequence[Page]) -> Searches:
    """Ask a question about each of ``asked``, of its own user; the first few are not counted."""
    measured = Searches([], [])

    def find(page: Page, query: str) -> None:
        pipeline.retrieve(page["user_id"], query)

    def trip(_: Page, query: str) -> None:
        embed_query(pipeline, query)

    for number, page in enumerate((*asked[:WARM_UP], *asked), -min(WARM_UP, len(asked))):
        query = question(page, number)
        turns = [(measured.searches, find), (measured.trips, trip)]
        for samples, call in turns if number % 2 else turns[::-1]:
            begun = time.perf_counter()
            call(page, query)
            if number >= 0:
                samples.append(MS * (time.perf_counter() - begun))
    return measured
