"""How fast a JSON Lines file is read, accepted and worked off, the fake backend in place of the model.

Bursts: some thousand lines are read and accepted while nothing else is under way, as a chat's import comes; the
pipeline comes to rest before the next. Sustained: all lines at once, from the first until every page is embedded, in
mid-term memory and written. What everything takes of the processors is told by process, so that it can be seen what
the rate is bounded by.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from mos_pipeline import MemoryPipeline
from mos_pipeline.ingest import Reading, SourceFile, Stream, resumed
from mos_pipeline.ingest.records import SourceRecord
from mos_pipeline.ingest.resume import Taken
from perf.options import Options
from perf.pipelines import pids_of, wait_ready
from perf.processes import cpu_seconds
from perf.result import BenchResult, Figure, at_least
from perf.scale import MEAN_PAGES, crowd_pages

__all__ = ["run"]

FULL, QUICK = 60_000, 4_000
BURST = 2_000  # pages
IDLE_TIMEOUT_S = 3600.0
POOLS = ("embedder", "llm", "writer")
US = 1e6


def run(options: Options) -> BenchResult:
    """Measure reading, accepting and working off."""
    count = options.size(FULL, QUICK)
    with options.store() as folder:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = _written(folder.parent / "pages.jsonl", count)
        with options.open(folder, embedding__backend="fake", backlog__max_bytes=1 << 30) as pipeline:
            wait_ready(pipeline)
            taken = _taken(file)
            bursts = [_burst(pipeline, islice(taken, BURST)) for _ in range(options.times(10, 1))]
            sustained = _sustained(pipeline, taken)
            configuration = pipeline._engine.config.as_dict()
    return BenchResult("jsonl", configuration, [_accepted(bursts), *sustained])


def _written(path: Path, count: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(page) + "\n" for page in islice(crowd_pages(max(1, count // MEAN_PAGES)), count))
    return path


def _taken(path: Path) -> Iterator[Taken]:
    return resumed(SourceFile.of(Stream(path), "auto"), Reading(), {}).taken


def _accept(pipeline: MemoryPipeline, taken: Iterable[Taken]) -> int:
    count = 0
    for item, mark in taken:
        if not isinstance(item, SourceRecord):
            raise item
        pipeline.add(
            item.user_id,
            item.user_input,
            item.agent_response,
            timestamp=item.timestamp,
            metadata=item.metadata,
            source=mark,
        )
        count += 1
    return count


def _burst(pipeline: MemoryPipeline, taken: Iterable[Taken]) -> float:
    """Return at how many pages a second a burst is accepted."""
    begun = time.perf_counter()
    rate = _accept(pipeline, taken) / (time.perf_counter() - begun)
    pipeline.wait_idle(IDLE_TIMEOUT_S)
    return rate


def _accepted(rates: list[float]) -> Figure:
    note = f"bursts of {BURST} lines, read, checked and accepted; p99 and max are of the quickest ones"
    return Figure.of("JSON Lines accepted in bursts", "pages/s", rates, at_least(50_000), note=note)


def _sustained(pipeline: MemoryPipeline, taken: Iterable[Taken]) -> list[Figure]:
    pools = {name: pids_of(pipeline, name) for name in POOLS}
    before = {name: cpu_seconds(pids) for name, pids in pools.items()} | {"main": time.process_time()}
    begun = time.perf_counter()
    count = _accept(pipeline, taken)
    reading = time.perf_counter() - begun
    pipeline.wait_idle(IDLE_TIMEOUT_S)
    spent = time.perf_counter() - begun
    after = {name: cpu_seconds(pids) for name, pids in pools.items()} | {"main": time.process_time()}
    costs = {name: US * (after[name] - before[name]) / count for name in ("main", *POOLS)}
    told = ", ".join(f"{name} {cost:.0f}" for name, cost in costs.items())
    note = f"processor time a page in µs: {told}; on {os.cpu_count()} cores"
    return [
        Figure("JSON Lines accepted, sustained", "pages/s", count, count / reading),
        Figure(
            "JSON Lines worked off, sustained", "pages/s", count, count / spent, aims=(at_least(15_000),), note=note
        ),
        Figure("processor time a page, all processes", "µs", count, sum(costs.values())),
    ]
