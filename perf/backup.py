"""What ``add`` costs its caller while the store is copied: a backup of many pages beside full ingestion.

Pages are added in bursts, faster than they are worked off, all the time. First for some seconds with nothing beside,
then while the command ``backup`` copies the store from a process of its own, then while a thread of this process does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from threading import Thread

from mos_pipeline import MemoryPipeline
from mos_pipeline.store.backup import backup_store
from perf.options import Options
from perf.pipelines import wait_ready
from perf.result import BenchResult, Figure, at_most
from perf.scale import MEAN_PAGES, crowd_pages
from perf.texts import Page

__all__ = ["run"]

FULL, QUICK = 100_000, 2_000
ALONE_S, QUICK_ALONE_S = 5.0, 1.0
BURST = 20
PAUSE_S = 0.002
IDLE_TIMEOUT_S = 3600.0
MS = 1000.0


def run(options: Options) -> BenchResult:
    """Measure ``add`` beside backups."""
    count = options.size(FULL, QUICK)
    pages = crowd_pages(max(1, count // MEAN_PAGES))
    with options.store() as folder, options.open(folder, embedding__backend="fake") as pipeline:
        wait_ready(pipeline)
        pipeline.add_many(islice(pages, count))
        pipeline.wait_idle(IDLE_TIMEOUT_S)
        end = time.monotonic() + (QUICK_ALONE_S if options.quick else ALONE_S)
        alone, _ = _adds(pipeline, pages, lambda: time.monotonic() < end)
        by_command = _beside(pipeline, pages, folder, _by_command)
        by_library = _beside(pipeline, pages, folder, backup_store)
        configuration = pipeline._engine.config.as_dict()
    figures = [
        Figure.of("add under full ingestion", "ms", alone),
        _figure("the command", count, *by_command),
        _figure("a thread of the owner's", count, *by_library),
    ]
    return BenchResult("backup", configuration, figures)


def _figure(what: str, count: int, adds: list[float], seconds: float) -> Figure:
    note = f"{count} pages and what was added meanwhile, copied in {seconds:.2g} s"
    return Figure.of(f"add while {what} makes a backup", "ms", adds, at_most(10, "max"), note=note)


def _by_command(store: Path, target: Path) -> None:
    command = [sys.executable, "-m", "mos_pipeline", "backup", "--store", str(store), str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (our own)


def _beside(
    pipeline: MemoryPipeline, pages: Iterator[Page], store: Path, backup: Callable[[Path, Path], object]
) -> tuple[list[float], float]:
    """Return what adds take while ``backup`` runs, in milliseconds, and how long it ran, in seconds."""
    target = store.parent / f"backup {backup.__name__}"
    thread = Thread(target=backup, args=(store, target), name="backup")
    thread.start()
    found = _adds(pipeline, pages, thread.is_alive)
    thread.join()
    if not (target / "MANIFEST").is_file():
        raise RuntimeError(f"{target}: no backup was made")
    return found


def _adds(pipeline: MemoryPipeline, pages: Iterator[Page], goes_on: Callable[[], bool]) -> tuple[list[float], float]:
    """Add bursts as long as ``goes_on()``; return what each add took, in milliseconds, and the time, in seconds."""
    samples, begun_at = list[float](), time.perf_counter()
    while goes_on():
        for page in list(islice(pages, BURST)):
            begun = time.perf_counter()
            pipeline.add(**page)
            samples.append(MS * (time.perf_counter() - begun))
        time.sleep(PAUSE_S)
    return samples, time.perf_counter() - begun_at
