"""A service's memory: a million pages of ten thousand users, the fake backend in place of the model.

Users' sizes are lognormal (σ = 1, mean 100): half of them have fewer than 60 pages, one in a hundred more than 600.
Some hundred conversations go on at a time, page by page in turn, so that a user's pages lie scattered over the whole
store. Searches are of the users of pages drawn evenly from all, so large users are asked as much more often as they
have more pages.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator
from itertools import accumulate, cycle, groupby, islice
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

from mos_pipeline import MemoryPipeline
from perf.options import Options
from perf.pipelines import wait_ready
from perf.processes import disk_bytes, pss_bytes
from perf.result import BenchResult, Figure, at_most
from perf.searching import search
from perf.texts import Page, synthetic_pages

__all__ = ["crowd_pages", "run"]

FULL = 1_000_000
MEAN_PAGES = 100  # of a user
CONVERSATIONS = 128  # that go on at a time
FEWER = 5
IDLE_TIMEOUT_S = 4 * 3600.0


class _Grown(NamedTuple):
    """A store at some size: seconds of growing, bytes of memory, and pages to ask about."""

    seconds: float
    memory: int
    asked: list[Page]


def run(options: Options) -> BenchResult:
    """Measure a store of many users."""
    count = options.size(FULL, 5000)
    with options.store() as folder:
        with options.open(folder, embedding__backend="fake") as pipeline:
            wait_ready(pipeline)
            pages = crowd_pages(max(1, count // MEAN_PAGES))
            asked = options.times(2000, 100)
            small = _grow(pipeline, islice(pages, count // FEWER), 1 + count // asked)
            large = _grow(pipeline, islice(pages, count - count // FEWER), 1 + count // asked)
            users = len(pipeline.users())
            searches = search(pipeline, [*small.asked, *large.asked])
            configuration = pipeline._engine.config.as_dict()
        figures = [
            _pace(large, count - count // FEWER),
            *searches.figures(f"{count} pages of {users} users", at_most(2), at_most(10, "p99")),
            *_memory(small, large, count),
            _disk(folder, count),
        ]
    return BenchResult("scale", configuration, figures)


def crowd_pages(users: int, seed: int = 1) -> Iterator[Page]:
    """Yield pages of so many users without end, their conversations interleaved; the same for the same ``seed``."""
    talks = _conversations(users, seed)
    going = list(islice(talks, CONVERSATIONS))
    for place in cycle(range(CONVERSATIONS)):
        page = next(going[place], None)
        if page is None:
            going[place] = next(talks)
            page = next(going[place])
        yield page


def _conversations(users: int, seed: int) -> Iterator[Iterator[Page]]:
    chance = random.Random(seed)  # noqa: S311 (texts, no secrets)
    sizes = list(accumulate(map(math.exp, NormalDist().samples(users, seed=seed))))
    for _, pages in groupby(synthetic_pages(seed=seed), lambda page: page["metadata"]["session"]):
        (number,) = chance.choices(range(users), cum_weights=sizes)
        yield iter([{**page, "user_id": f"user {number}"} for page in pages])


def _grow(pipeline: MemoryPipeline, pages: Iterator[Page], every: int) -> _Grown:
    """Add ``pages``, wait until they are worked off, and remember every ``every``-th of them."""
    asked = list[Page]()
    begun = time.perf_counter()
    for number, page in enumerate(pages):
        pipeline.add(**page)
        if number % every == 0:
            asked.append(page)
    pipeline.wait_idle(IDLE_TIMEOUT_S)
    return _Grown(time.perf_counter() - begun, pss_bytes(os.getpid()), asked)


def _pace(grown: _Grown, pages: int) -> Figure:
    note = "from the first add until all are embedded, applied and written; making the texts is counted in"
    return Figure("ingest of many users' pages", "pages/s", pages, pages / grown.seconds, note=note)


def _memory(small: _Grown, large: _Grown, count: int) -> list[Figure]:
    """Return what a page takes of all memory, and what one more takes."""
    fewer = count // FEWER
    note = f"PSS {large.memory} bytes of this process and its children at {count} pages, {small.memory} at {fewer}"
    aims = (at_most(2500),) if count >= FULL else ()  # of fewer pages each carries more of the processes themselves
    more = (large.memory - small.memory) / (count - fewer)
    return [
        Figure("memory for a page, all told", "bytes", count, large.memory / count, aims=aims, note=note),
        Figure("memory for one more page", "bytes", count - fewer, more),
    ]


def _disk(folder: Path, pages: int) -> Figure:
    blocks, lengths = disk_bytes(folder)
    return Figure(
        "disk for a page, all told",
        "bytes",
        pages,
        max(blocks, lengths) / pages,
        note=f"blocks {blocks}, lengths {lengths}",
    )
