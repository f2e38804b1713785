"""Retrieving by 1, 8 and 64 people at once, while somebody's bulk load keeps the embedder busy.

Each is a thread of the owner's process that asks a question of its own user, and the next one two seconds later, as
people do; so 64 ask some 32 questions a second. Beside it the same without the bulk load. What was asked when the load
had run out is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from threading import Barrier, Thread
from typing import Any

from mos_pipeline import MemoryPipeline
from perf.options import Options
from perf.pipelines import is_working, wait_ready
from perf.result import BenchResult, Figure, Series
from perf.searching import MS
from perf.texts import Page, question, synthetic_pages
from perf.timing import percentile

__all__ = ["run"]

READERS = (1, 8, 64)
OWN_PAGES = 60
BULK_PAGES = 100_000
PAUSE_S = 2.0
SPAN_S, QUICK_SPAN_S = 20.0, 0.7
IDLE_S = 600.0
FAKE_MS = 10.0
MANY = 1 << 40
P95 = 0.95


def run(options: Options) -> BenchResult:
    """Measure idle and busy, for each number of readers."""
    settings: dict[str, Any] = {"embedding__backend": options.backend, "embedding__fake_ms_per_text": FAKE_MS}
    with (
        options.store() as folder,
        options.open(folder, backlog__max_bytes=MANY, **settings) as pipeline,
    ):
        wait_ready(pipeline)
        own = [list(islice(synthetic_pages(f"reader{n}", n), options.size(OWN_PAGES, 1))) for n in range(READERS[-1])]
        pipeline.add_many([page for pages in own for page in pages])
        pipeline.wait_idle(IDLE_S)
        span = QUICK_SPAN_S if options.quick else SPAN_S
        idle = {count: _asked(pipeline, own[:count], span, busy=False) for count in READERS}
        pipeline.add_many(islice(synthetic_pages("bulk loader", 10_000), BULK_PAGES // options.times(1, 50)))
        busy = {count: _asked(pipeline, own[:count], span, busy=True) for count in READERS}
        configuration = pipeline._engine.config.as_dict()
    figures = [
        figure
        for count in READERS
        for way, samples in (("idle", idle[count]), ("under ingestion", busy[count]))
        for figure in _figures(f"{count} readers, {way}", samples)
    ]
    return BenchResult("readers", configuration, figures, series=_series(idle, busy))


def _asked(pipeline: MemoryPipeline, own: Sequence[Sequence[Page]], span_s: float, *, busy: bool) -> list[float]:
    """Return the milliseconds of what the readers ask within ``span_s`` seconds."""
    samples, together = list[float](), Barrier(len(own))
    failures = list[BaseException]()

    def read(pages: Sequence[Page], place: int) -> None:
        together.wait()
        stop, number = time.monotonic() + span_s, place
        time.sleep(PAUSE_S * place / len(own))  # they don't all ask at the same moment
        while time.monotonic() < stop:
            page = pages[number % len(pages)]
            begun = time.perf_counter()
            pipeline.retrieve(page["user_id"], question(page, number), timeout=IDLE_S)
            spent = MS * (time.perf_counter() - begun)
            if not busy or is_working(pipeline):
                samples.append(spent)
            number += 1
            time.sleep(max(0.0, min(PAUSE_S, stop - time.monotonic())))

    def guarded(pages: Sequence[Page], place: int) -> None:
        try:
            read(pages, place)
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that waits)
            failures.append(error)

    threads = [Thread(target=guarded, args=(pages, place)) for place, pages in enumerate(own)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if not samples:
        raise RuntimeError("the bulk load was worked off too soon: nothing was measured; use more pages")
    return samples


def _figures(what: str, samples: Sequence[float]) -> list[Figure]:
    return [
        Figure.of(f"retrieve, {what}", "ms", samples),
        Figure(f"retrieve, {what}, p95", "ms", len(samples), percentile(samples, P95)),
    ]


def _series(idle: dict[int, list[float]], busy: dict[int, list[float]]) -> list[Series]:
    return [
        Series(
            "retrieve by many at once",
            f"{way}, {name}",
            "readers",
            "ms",
            [(float(count), percentile(samples, share)) for count, samples in measured.items()],
        )
        for way, measured in (("idle", idle), ("under ingestion", busy))
        for name, share in (("p50", 0.5), ("p95", P95), ("p99", 0.99))
    ]
