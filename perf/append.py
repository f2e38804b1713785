"""What ``add`` costs its caller while the embedder works as hard as it can.

Three ways: bursts of 20, as a chat's import comes; single pages with pauses of 2 ms, where caches have gone cold and
threads to sleep, beside a bare copy of the same bytes into a mapped file, turn by turn; and the first 15 pages of
fresh users, of which the ninth fills the ring. What was measured while the embedder had run dry does not count.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from mos_pipeline import MemoryPipeline
from mos_pipeline.messages import encode
from perf.options import Options
from perf.pipelines import is_working, pids_of, wait_ready
from perf.processes import cpu_seconds
from perf.result import BenchResult, Figure, at_most
from perf.texts import Page

__all__ = ["run"]

BURST = 20
USERS = 10
PREFILL = 400
REST_S = 0.02
PAUSE_S = 0.002
FRESH_PAGES = 15
EDGE = 5
FAKE_MS = 20.0
US = 1e6

T = TypeVar("T")


@dataclass(slots=True)
class Saturation:
    """Keeps what was measured while the embedder worked, and counts the rest."""

    pipeline: MemoryPipeline
    kept: int = 0
    left_out: int = 0
    cpu_begun: float = field(init=False)
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.cpu_begun, self.begun = self._cpu(), time.monotonic()

    def during(self, measure: Callable[[Page], T], pages: Iterable[Page]) -> list[T]:
        """Return ``measure`` of each page, or nothing where the embedder had too little work before or after them."""
        working = is_working(self.pipeline)
        time.sleep(REST_S)
        samples = [measure(page) for page in pages]
        if working and is_working(self.pipeline):
            self.kept += 1
            return samples
        self.left_out += 1
        return []

    def note(self) -> str:
        """Tell how busy the embedder was."""
        cores = (self._cpu() - self.cpu_begun) / (time.monotonic() - self.begun)
        return f"the embedder used {cores:.2f} cores; left out: {self.left_out} of {self.left_out + self.kept} groups"

    def _cpu(self) -> float:
        return cpu_seconds(pids_of(self.pipeline, "embedder"))


def run(options: Options) -> BenchResult:
    """Measure ``add``."""
    adds = options.size(6000, 600)
    pages = options.page_stream()
    with (
        options.store() as folder,
        options.open(folder, embedding__backend=options.backend, embedding__fake_ms_per_text=FAKE_MS) as pipe,
    ):
        wait_ready(pipe)
        for number, page in zip(range(max(PREFILL, adds // 10)), pages, strict=False):
            pipe.add(**_of_user(page, number))
        while not is_working(pipe):
            time.sleep(REST_S)
        figures = [
            _bursts(pipe, pages, adds // BURST),
            *_paused(pipe, pages, adds // 6, folder.parent),
            _fresh_users(pipe, pages, options.times(50, 10)),
        ]
        return BenchResult("append", pipe._engine.config.as_dict(), figures)


def _bursts(pipeline: MemoryPipeline, pages: Iterator[Page], bursts: int) -> Figure:
    saturation, samples, add = Saturation(pipeline), list[float](), partial(_add, pipeline)
    for number in range(bursts):
        batch = [_of_user(next(pages), number) for _ in range(BURST)]
        samples += saturation.during(add, batch)
    aims = at_most(15), at_most(150, "p99")
    return Figure.of(f"add in bursts of {BURST}", "µs", _found(samples), *aims, note=saturation.note())


def _paused(pipeline: MemoryPipeline, pages: Iterator[Page], count: int, folder: Path) -> list[Figure]:
    saturation, samples = Saturation(pipeline), list[tuple[float, float]]()
    with _BareFile(folder / "bare", 4096 * (count + BURST)) as bare:
        for number in range(-(-count // BURST)):
            batch = [_of_user(next(pages), number) for _ in range(BURST)]
            samples += saturation.during(partial(_pair, pipeline, bare), batch)
    adds, writes = zip(*_found(samples), strict=True)
    pause = f"{1000 * PAUSE_S:g} ms"
    return [
        Figure.of(f"add after pauses of {pause}", "µs", adds, note=saturation.note()),
        Figure.of("bare write with the same pauses", "µs", writes),
        Figure.ratio("paused add / bare write", adds, writes, at_most(2)),
    ]


def _pair(pipeline: MemoryPipeline, bare: _BareFile, page: Page) -> tuple[float, float]:
    """Return what one add and one bare write of the same bytes take, each after a pause; in microseconds."""
    record = encode(list(page.values()))
    time.sleep(PAUSE_S)
    add = _add(pipeline, page)
    time.sleep(PAUSE_S)
    return add, bare.write(record)


def _fresh_users(pipeline: MemoryPipeline, pages: Iterator[Page], users: int) -> Figure:
    saturation, samples, add = Saturation(pipeline), list[float](), partial(_add, pipeline)
    for user in range(users):
        batch = [{**next(pages), "user_id": f"fresh {user}"} for _ in range(FRESH_PAGES)]
        samples += saturation.during(add, batch)
    grouped = [samples[at : at + FRESH_PAGES] for at in range(0, len(_found(samples)), FRESH_PAGES)]
    first = [spent for group in grouped for spent in group[:EDGE]]
    last = [spent for group in grouped for spent in group[-EDGE:]]
    name = f"adds {FRESH_PAGES - EDGE + 1}–{FRESH_PAGES} / adds 1–{EDGE} of fresh users"
    return Figure.ratio(name, last, first, at_most(1.1), note=saturation.note())


def _of_user(page: Page, number: int) -> Page:
    return {**page, "user_id": f"user {number % USERS}"}


def _add(pipeline: MemoryPipeline, page: Page) -> float:
    """Return what ``add`` takes, in microseconds."""
    begun = time.perf_counter()
    pipeline.add(**page)
    return US * (time.perf_counter() - begun)


def _found(samples: list[T]) -> list[T]:
    if not samples:
        raise RuntimeError("the embedder ran dry all the time: nothing was measured; use more pages")
    return samples


class _BareFile:
    """A preallocated file, mapped and written from its beginning on."""

    def __init__(self, path: Path, size: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.posix_fallocate(descriptor, 0, size)
        self._map = mmap.mmap(descriptor, size)
        self._end = 0
        os.close(descriptor)

    def write(self, data: bytes) -> float:
        """Copy ``data`` behind what was written before; return what that takes, in microseconds."""
        begun = time.perf_counter()
        stop = self._end + len(data)
        self._map[self._end : stop] = data
        self._end = stop
        return US * (time.perf_counter() - begun)

    def __enter__(self) -> _BareFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
