"""One user's 100,000 pages: what a search takes beside encoding, and what rounding costs the vector search.

The recall is that of the ten best of the pool's float16 rows against the ten best by float32 vectors that were never
rounded, question's and pages' alike; of pages that are equally good by those, each counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from mos_pipeline import MemoryPipeline, config
from mos_pipeline.messages import embedded_text
from mos_pipeline.pipeline import DEFAULT_ASSISTANT
from mos_pipeline.stages.fake_backend import FakeBackend
from perf.options import Options
from perf.pipelines import wait_ready
from perf.result import BenchResult, Figure, at_least, at_most
from perf.searching import search
from perf.texts import Page, question, synthetic_pages

__all__ = ["recall", "run"]

USER = "user"
K = 10
AT_ONCE = 1024
IDLE_TIMEOUT_S = 3600.0

Exact = npt.NDArray[np.float32]


def run(options: Options) -> BenchResult:
    """Measure searches of one large user."""
    count = options.size(100_000, 2000)
    pages = list(islice(synthetic_pages(USER), count))
    with options.store() as folder, options.open(folder, embedding__backend="fake") as pipeline:
        wait_ready(pipeline)
        pipeline.add_many(pages)
        pipeline.wait_idle(IDLE_TIMEOUT_S)
        asked = [pages[number * 7919 % count] for number in range(options.times(500, 50))]
        figures = search(pipeline, asked).figures(f"{count} pages of one user", at_most(15), at_most(40, "p99"))
        recalls = _recalls(pipeline, pages, asked[: options.times(200, 50)])
        return BenchResult("large", pipeline._engine.config.as_dict(), [*figures, _recall_figure(recalls)])


def recall(found: npt.NDArray[np.int64], exact: Exact) -> float:
    """Return which share of ``found``, distinct places in ``exact`` (n,), are among as many best of it."""
    least = np.partition(exact, -len(found))[-len(found)]
    return float((exact[found] >= least).mean())


def _recall_figure(recalls: Sequence[float]) -> Figure:
    """Return the mean, which is what a recall over questions is."""
    mean, worst = sum(recalls) / len(recalls), min(recalls)
    note = f"mean; the worst question's is {worst:g}"
    return Figure(f"recall@{K} of the vector search", "", len(recalls), mean, aims=(at_least(0.99),), note=note)


def _recalls(pipeline: MemoryPipeline, pages: Sequence[Page], asked: Sequence[Page]) -> list[float]:
    backend = FakeBackend(config.Embedding())
    texts = [embedded_text(page["user_input"], page["agent_response"]) for page in pages]
    vectors = np.concatenate([_exact(backend, texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)])
    queries = _exact(backend, [question(page, number) for number, page in enumerate(asked)])
    return [recall(_nearest(pipeline, query), vectors @ query) for query in queries]


def _exact(backend: FakeBackend, texts: Sequence[str]) -> Exact:
    return backend.exact(backend.prepare(texts)).astype(np.float32)


def _nearest(pipeline: MemoryPipeline, query: Exact) -> npt.NDArray[np.int64]:
    """Return the sequence numbers of the ten rows of the pool that are most like ``query``."""
    engine = pipeline._engine
    scope = engine.state.find(USER, DEFAULT_ASSISTANT)
    assert scope is not None
    seqs, scores = engine.embedding.pool.scores(scope.page_rows, query)
    return np.array(seqs[np.argsort(-scores)[:K]], np.int64)
