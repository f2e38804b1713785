"""What the same things cost at 1,000, 10,000 and 100,000 pages of many users, the fake backend in place of the model.

At each size: adds in bursts, searches beyond encoding their questions, memory of all processes and bytes on the disk
for a page, and the time from opening the store in a fresh process to the first ``add`` and the first answer. The store
grows by new users, of 100 pages each on the average, so no search has a reason to cost more.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mos_pipeline import MemoryPipeline
from perf.children import Child
from perf.options import Options
from perf.pipelines import wait_ready
from perf.processes import disk_bytes, pss_bytes
from perf.result import BenchResult, Figure, Series, at_most
from perf.scale import MEAN_PAGES, crowd_pages
from perf.searching import search
from perf.texts import Page
from perf.timing import median, percentile

__all__ = ["run"]

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000), (300, 1_000)
BURSTS, BURST = 50, 20
REST_S = 0.02
IDLE_S = 3600.0
US, KB = 1e6, 1024.0


@dataclass(slots=True)
class _Size:
    """What was measured with so many pages: add in µs, search in ms, memory and disk in bytes a page, opening in s."""

    pages: int
    adds: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    memory: float = 0.0
    disk: float = 0.0
    first_add: float = 0.0
    first_answer: float = 0.0


_CURVES: tuple[tuple[str, str, Callable[[_Size], float]], ...] = (
    ("add, median", "µs", lambda size: median(size.adds)),
    ("add, p99", "µs", lambda size: percentile(size.adds, 0.99)),
    ("retrieve beyond encoding, median", "ms", lambda size: median(size.searches)),
    ("retrieve beyond encoding, p99", "ms", lambda size: percentile(size.searches, 0.99)),
    ("memory for a page", "KB", lambda size: size.memory / KB),
    ("disk for a page", "bytes", lambda size: size.disk),
    ("opening to the first add", "s", lambda size: size.first_add),
    ("opening to the first answer", "s", lambda size: size.first_answer),
)


def run(options: Options) -> BenchResult:
    """Measure at each size."""
    sizes = [_Size(pages) for pages in (QUICK_SIZES if options.quick else SIZES)]
    if options.pages is not None:
        sizes = [_Size(max(1, options.pages // 10)), _Size(options.pages)]
    added = 0
    with options.store() as folder:
        for size in sizes:
            with options.open(folder, embedding__backend="fake", backlog__max_bytes=1 << 40) as pipeline:
                wait_ready(pipeline)
                added += _measure(pipeline, size, added, options.times(500, 50))
                configuration = pipeline._engine.config.as_dict()
            size.disk = max(disk_bytes(folder)) / added
            _open(options, folder, size)
            added += 1  # the page that the fresh process adds
    return BenchResult("growth", configuration, _figures(sizes), series=_series(sizes))


def _measure(pipeline: MemoryPipeline, size: _Size, there: int, asked: int) -> int:
    """Let the store grow to its size; return how many pages were added."""
    wanted = size.pages - there
    bursts = min(BURSTS, max(1, wanted // BURST // 2))
    pages = _newcomers(wanted, there)
    grown = list(islice(pages, max(0, wanted - bursts * BURST)))
    pipeline.add_many(grown)
    pipeline.wait_idle(IDLE_S)
    last = list(islice(pages, bursts * BURST))
    for at in range(0, len(last), BURST):
        size.adds += [_timed(pipeline, page) for page in last[at : at + BURST]]
        time.sleep(REST_S)
    pipeline.wait_idle(IDLE_S)
    size.memory = pss_bytes(os.getpid()) / size.pages
    those = [*grown, *last]
    measured = search(pipeline, [those[number * 7919 % len(those)] for number in range(asked)])
    trip = median(measured.trips)
    size.searches = [max(0.0, spent - trip) for spent in measured.searches]
    return len(those)


def _newcomers(count: int, there: int) -> Iterator[Page]:
    """Yield pages of users who were not there when the store had ``there`` pages."""
    for page in crowd_pages(max(1, count // MEAN_PAGES)):
        yield {**page, "user_id": f"{page['user_id']} of {there}"}


def _timed(pipeline: MemoryPipeline, page: Page) -> float:
    begun = time.perf_counter()
    pipeline.add(**page)
    return US * (time.perf_counter() - begun)


def _open(options: Options, folder: Path, size: _Size) -> None:
    with Child("owner", str(folder), json.dumps(options.settings)) as owner:
        first = owner.ask("first")
        size.first_add, size.first_answer = first["add"] - owner.started, first["retrieve"] - owner.started


def _figures(sizes: Sequence[_Size]) -> list[Figure]:
    small, large = sizes[0], sizes[-1]
    return [
        *(Figure.of(f"add, {size.pages} pages", "µs", size.adds) for size in sizes),
        Figure.ratio(f"add, {large.pages} pages over {small.pages}", large.adds, small.adds, at_most(1.1)),
        *(Figure.of(f"retrieve beyond encoding, {size.pages} pages", "ms", size.searches) for size in sizes),
        Figure.ratio(f"retrieve, {large.pages} pages over {small.pages}", large.searches, small.searches),
        *(Figure(f"disk for a page, {size.pages} pages", "bytes", size.pages, size.disk) for size in sizes),
        *(Figure(f"opening to the first add, {size.pages} pages", "s", 1, size.first_add) for size in sizes),
        *(Figure(f"opening to the first answer, {size.pages} pages", "s", 1, size.first_answer) for size in sizes),
    ]


def _series(sizes: Sequence[_Size]) -> list[Series]:
    return [
        Series(f"growth: {name.partition(',')[0]}", name, "pages in the store", unit, [(s.pages, of(s)) for s in sizes])
        for name, unit, of in _CURVES
    ]
