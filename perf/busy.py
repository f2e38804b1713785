"""What users feel while another user's bulk load keeps the embedder busy.

One: searches, beside the same searches with nothing else to do; a query every tenth of a second.

Two: a page's way to mid-term memory. Someone else's backlog is there first; then, again and again, a user adds a full
batch (``short_term.capacity`` pages) at once, and the time runs from before the last of them is added, which completes
the batch, until all of them are in their sessions. (Pages added one by one wait for their batch to fill for as long as
the user takes; that is not counted.) What was measured after the backlog had run out does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from threading import Event

from mos_pipeline import MemoryPipeline
from mos_pipeline.memory.outcomes import BatchOutcome
from mos_pipeline.memory.state import Scope
from perf.options import Options
from perf.pipelines import is_working, wait_ready
from perf.result import BenchResult, Figure, at_most
from perf.searching import MS
from perf.texts import Page, question, synthetic_pages
from perf.timing import percentile

__all__ = ["run"]

USER, BULK = "user", "bulk loader"
OWN_PAGES, QUICK_OWN_PAGES = 200, 30
PAUSE_S = 0.1
FAKE_MS = 10.0
P95 = 0.95
IDLE_TIMEOUT_S = BATCH_TIMEOUT_S = 600.0
MANY = 1 << 40  # bytes of backlog: nothing is held back


def run(options: Options) -> BenchResult:
    """Measure searches and the way to mid-term memory beside a bulk load."""
    settings = {
        "embedding__backend": options.backend,
        "embedding__fake_ms_per_text": FAKE_MS,
        "backlog__max_bytes": MANY,
    }
    own = synthetic_pages(USER, seed=2)
    with options.store() as folder, options.open(folder, **settings) as pipeline:
        wait_ready(pipeline)
        pages = list(islice(own, options.times(OWN_PAGES, QUICK_OWN_PAGES)))
        pipeline.add_many(pages)
        pipeline.wait_idle(IDLE_TIMEOUT_S)
        count = options.times(200, 10)
        idle = _searches(pipeline, pages, count)
        pipeline.add_many(islice(synthetic_pages(BULK), options.size(100_000, 2000)))
        busy = _searches(pipeline, pages, count)
        ways = _ways(pipeline, own, len(pages), options.times(60, 2))
        note = f"at the end {pipeline.stats().backlog_pages} pages of the bulk load wait"
        return BenchResult("busy", pipeline._engine.config.as_dict(), _figures(idle, busy, ways, note))


def _figures(idle: list[float], busy: list[float], ways: list[float], note: str) -> list[Figure]:
    if not (busy and ways):
        raise RuntimeError("the bulk load was worked off too soon: nothing was measured; use more pages")
    slow, quick = percentile(busy, P95), percentile(idle, P95)
    return [
        Figure.of("retrieve, idle", "ms", idle),
        Figure.of("retrieve beside a bulk load", "ms", busy),
        Figure("p95 beside a bulk load / idle", "", len(busy), slow / quick, aims=(at_most(3),)),
        Figure.of("add to mid-term beside a bulk load", "s", ways, note=note),
        Figure("add to mid-term beside a bulk load, p95", "s", len(ways), percentile(ways, P95), aims=(at_most(2),)),
    ]


def _searches(pipeline: MemoryPipeline, pages: list[Page], count: int) -> list[float]:
    """Return the milliseconds of ``count`` searches, those left out before which the embedder's load had changed."""
    samples = []
    working = is_working(pipeline)
    for number in range(count):
        page = pages[number * 79 % len(pages)]
        begun = time.perf_counter()
        pipeline.retrieve(page["user_id"], question(page, number))
        spent = MS * (time.perf_counter() - begun)
        if is_working(pipeline) == working:
            samples.append(spent)
        time.sleep(PAUSE_S)
    return samples


def _ways(pipeline: MemoryPipeline, pages: Iterator[Page], there: int, count: int) -> list[float]:
    """Return the seconds from adding the page that completes a batch until the batch is in mid-term memory.

    The user has ``there`` pages.
    """
    capacity = pipeline._engine.config.short_term.capacity
    watch = _Applied(pipeline)
    pipeline.add_many(islice(pages, -there % capacity))  # from here on a batch begins with the first page
    samples = []
    for _ in range(count):
        batch = list(islice(pages, capacity))
        pipeline.add_many(batch[:-1])
        begun = time.monotonic()
        applied = watch.wait(pipeline.add(**batch[-1]))
        if is_working(pipeline):
            samples.append(applied - begun)
    return samples


class _Applied:
    """Tells when a page's batch was applied."""

    def __init__(self, pipeline: MemoryPipeline) -> None:
        self._state = pipeline._engine.state
        self._apply: Callable[[Scope, BatchOutcome], list[int]] = self._state.apply
        self._when: dict[int, float] = {}
        self._came = Event()
        self._state.apply = self._note  # type: ignore[method-assign]

    def wait(self, page_id: str) -> float:
        """Return the monotonic seconds of the moment in which the page came into its session."""
        wanted = self._state.ids.resolve(page_id)
        assert wanted is not None
        deadline = time.monotonic() + BATCH_TIMEOUT_S
        while wanted not in self._when:
            self._came.clear()
            if wanted not in self._when and not self._came.wait(deadline - time.monotonic()):
                raise RuntimeError(f"page {page_id} is not in mid-term memory after {BATCH_TIMEOUT_S:g} s")
        return self._when[wanted]

    def _note(self, scope: Scope, outcome: BatchOutcome) -> list[int]:
        freed = self._apply(scope, outcome)
        if scope.user_id == USER:
            self._when.update(dict.fromkeys(outcome.seqs, time.monotonic()))
            self._came.set()
        return freed
