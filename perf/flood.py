"""Memory while a file far larger than it is ingested: 2 GB of JSON Lines, made on the spot.

The command ``ingest`` reads it with the fake model, and all its processes' memory (PSS) is sampled. The owner keeps
some bytes of each page (its vector, its words), so memory rises in a straight line; the figure is what a moment has
above it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np

from mos_pipeline import MemoryPipeline
from perf.options import Options
from perf.processes import pss_bytes
from perf.result import BenchResult, Figure, at_most
from perf.texts import synthetic_pages

__all__ = ["run"]

FULL_BYTES, QUICK_BYTES = 2_000_000_000, 8_000_000
PAGE_BYTES = 20_000  # as answers of an assistant that writes at length; short pages take what `scale` tells
USER_PAGES = 100
SAMPLE_S = 1.0
MIB = float(1 << 20)
FLAT = 64.0  # MiB above the line


def run(options: Options) -> BenchResult:
    """Measure the memory of an ingestion."""
    size = options.pages * PAGE_BYTES if options.pages else options.times(FULL_BYTES, QUICK_BYTES)
    with options.store() as folder:
        file = folder.parent / "pages.jsonl"
        count = _write(file, size)
        samples = _watched(file, folder)
        with MemoryPipeline.open(folder, workers=False, embedding__backend="fake") as pipeline:
            found, configuration = pipeline.stats().pages, pipeline._engine.config.as_dict()
        if found != count:
            raise RuntimeError(f"of {count} pages {found} are there")
    return BenchResult("flood", configuration, _figures(samples, count, size))


def _write(path: Path, size: int) -> int:
    """Write pages of about ``PAGE_BYTES`` each until the file has ``size`` bytes; return how many."""
    count, pages = 0, synthetic_pages()
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            said = list(islice(pages, PAGE_BYTES // 350))
            page = {**said[0], "user_id": f"user {count // USER_PAGES}"}
            page["agent_response"] = "\n".join(each["agent_response"] + each["user_input"] for each in said)
            file.write(json.dumps(page) + "\n")
            count += 1
    return count


def _watched(file: Path, store: Path) -> list[tuple[float, int]]:
    """Ingest ``file``; return samples of the seconds since the start and the bytes of all processes."""
    settings = file.with_name("fake.yaml")
    settings.write_text("embedding: {backend: fake}\n", encoding="utf-8")
    command = [sys.executable, "-m", "mos_pipeline", "ingest", str(file), "--store", str(store)]
    command += ["--config", str(settings)]
    samples, begun = list[tuple[float, int]](), time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        while process.poll() is None:
            samples.append((time.monotonic() - begun, pss_bytes(process.pid)))
            try:
                process.wait(SAMPLE_S)
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise RuntimeError(f"ingest ended with {process.returncode}")
    return samples


def _figures(samples: list[tuple[float, int]], count: int, size: int) -> list[Figure]:
    ready = samples[len(samples) // 10 :]  # processes start meanwhile
    seconds, memory = (np.array(column) for column in zip(*ready, strict=True))
    slope, begins = np.polyfit(seconds, memory / MIB, 1)
    above = memory / MIB - (begins + slope * seconds)
    grown = slope * (seconds[-1] - seconds[0])
    note = f"{size / 1e9:.2g} GB in {count} pages, {len(samples)} samples in {samples[-1][0]:.0f} s"
    return [
        Figure("memory (PSS) at the first tenth's end", "MiB", len(ready), memory[0] / MIB, note=note),
        Figure("memory at the end", "MiB", len(ready), memory[-1] / MIB),
        Figure("memory at the most", "MiB", len(ready), memory.max() / MIB),
        Figure("growth for a page", "bytes", count, grown * MIB / (0.9 * count)),
        Figure("above a straight line at the most", "MiB", len(ready), above.max(), aims=(at_most(FLAT),)),
    ]
