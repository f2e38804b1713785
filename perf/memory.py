"""Does memory stay flat while a million pages come? By the fake backend; pages are made one by one, and never kept.

The pages come in ten parts. While a part is added and worked off, the memory of all processes is looked at again and
again (proportional set size: what they share counts once); once it is worked off and everything is written, once more.
A page may cost 2.5 KB for good: its columns, its words and its vector. What there is beyond that must not grow from the
first tenth to the last, neither at rest nor at its peak.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from mos_pipeline import MemoryPipeline
from perf.options import Options
from perf.pipelines import wait_ready
from perf.processes import pss_bytes
from perf.result import BenchResult, Figure, Series, at_most
from perf.scale import MEAN_PAGES, crowd_pages
from perf.texts import Page
from perf.watching import Sampler

__all__ = ["Part", "figures", "run"]

FULL, QUICK = 1_000_000, 5_000
TENTHS = 10
PAGE_BYTES = 2500
GROWTH_BYTES = 16 << 20  # four blocks of the vector pool, which is given memory a block at a time
SAMPLE_S, QUICK_SAMPLE_S = 5.0, 0.2
IDLE_S = 3600.0
MB = 1e6


class Part(NamedTuple):
    """What there was when a part of the pages had been worked off; bytes of all processes.

    Attributes:
        pages: in the store by then.
        seconds: from the part's first ``add`` until everything was worked off and written.
        rest: then.
        peak: the most there was at a look while it was worked on, or then; ``peak_pages`` were accepted at that moment.
    """

    pages: int
    seconds: float
    rest: int
    peak: int
    peak_pages: int

    @property
    def rest_beyond(self) -> float:
        """Bytes at rest, less what the pages may cost."""
        return self.rest - PAGE_BYTES * self.pages

    @property
    def peak_beyond(self) -> float:
        """Bytes at the peak, less what the pages may cost that there were then."""
        return self.peak - PAGE_BYTES * self.peak_pages


def run(options: Options) -> BenchResult:
    """Add all pages, and look at the memory."""
    count = options.size(FULL, QUICK)
    pages = crowd_pages(max(1, count // MEAN_PAGES))
    with options.store() as folder, options.open(folder, embedding__backend="fake") as pipeline:
        wait_ready(pipeline)
        parts = [_grown(pipeline, pages, size, options) for size in _sizes(count)]
        configuration = pipeline._engine.config.as_dict()
    return BenchResult("memory", configuration, figures(parts), series=_series(parts))


def _sizes(count: int) -> list[int]:
    """Return how many pages each part has."""
    return [(number + 1) * count // TENTHS - number * count // TENTHS for number in range(TENTHS)]


def _grown(pipeline: MemoryPipeline, pages: Iterator[Page], size: int, options: Options) -> Part:
    """Add so many of ``pages``, wait until they are worked off, and tell the part."""
    here, begun = os.getpid(), time.monotonic()
    accepted = pipeline.stats().pages

    def look() -> tuple[int, int]:
        return pss_bytes(here), accepted

    with Sampler(look, QUICK_SAMPLE_S if options.quick else SAMPLE_S) as sampler:
        for page in islice(pages, size):
            pipeline.add(**page)
            accepted += 1
        pipeline.wait_idle(IDLE_S)
    rest = pss_bytes(here), accepted
    peak, peak_pages = max((*sampler.seen, rest), key=lambda seen: seen[0] - PAGE_BYTES * seen[1])
    part = Part(accepted, time.monotonic() - begun, rest[0], peak, peak_pages)
    print(
        f"memory: {part.pages} pages, {part.rest / MB:.0f} MB at rest, {part.rest_beyond / MB:.1f} beyond "
        f"{PAGE_BYTES} bytes a page, {part.peak_beyond / MB:.1f} at the peak; {part.seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return part


def figures(parts: Sequence[Part]) -> list[Figure]:
    """Return what grew from the first part to the last."""
    first, last = parts[0], parts[-1]
    more = [(after.rest - before.rest) / (after.pages - before.pages) for before, after in pairwise(parts)]
    rest, peak = last.rest_beyond - first.rest_beyond, last.peak_beyond - first.peak_beyond
    beyond = f"memory beyond {PAGE_BYTES} bytes a page"
    note = f"{last.pages} pages in {sum(part.seconds for part in parts):.0f} s, making the texts counted in"
    aim = at_most(GROWTH_BYTES / MB)
    return [
        Figure(f"{beyond}, first tenth", "MB", 1, first.rest_beyond / MB, note=note),
        Figure(f"{beyond}, last tenth", "MB", 1, last.rest_beyond / MB),
        Figure(f"{beyond}, last tenth less first", "MB", 1, rest / MB, aims=(aim,)),
        Figure(f"{beyond}, at the peak, first tenth", "MB", 1, first.peak_beyond / MB),
        Figure(f"{beyond}, at the peak, last tenth", "MB", 1, last.peak_beyond / MB),
        Figure(f"{beyond}, at the peak, last tenth less first", "MB", 1, peak / MB, aims=(aim,)),
        Figure.of("memory for one more page, from tenth to tenth", "bytes", more),
        Figure("memory for a page, all told", "bytes", last.pages, last.rest / last.pages),
    ]


def _series(parts: Sequence[Part]) -> list[Series]:
    def curve(plot: str, name: str, values: Sequence[float]) -> Series:
        points = [(float(part.pages), value / MB) for part, value in zip(parts, values, strict=True)]
        return Series(plot, name, "pages in the store", "MB", points)

    beyond = f"memory beyond {PAGE_BYTES} bytes a page"
    return [
        curve("memory of all processes", "at rest", [part.rest for part in parts]),
        curve("memory of all processes", f"{PAGE_BYTES} bytes a page", [PAGE_BYTES * part.pages for part in parts]),
        curve(beyond, "at rest", [part.rest_beyond for part in parts]),
        curve(beyond, "at the peak", [part.peak_beyond for part in parts]),
    ]
