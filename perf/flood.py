"""Memory while a file far larger than it is ingested: 2 GB of JSON Lines, made on the spot.

The command ``ingest`` reads it with the fake model, and all its processes' memory (PSS) is sampled. The owner keeps
some bytes of each page, its vector and its words, so memory grows by these; the figure is what there is at the most,
over what there is in the end, when nothing but these is left.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from perf.options import Options, nested
from perf.processes import pss_bytes
from perf.result import BenchResult, Figure, at_most
from perf.texts import synthetic_pages

__all__ = ["run"]

FULL_BYTES, QUICK_BYTES = 2_000_000_000, 8_000_000
PAGE_BYTES = 20_000  # as answers of an assistant that writes at length; short pages take what `scale` tells
USER_PAGES = 100
SAMPLE_S = 1.0
MIB = float(1 << 20)
ENDING = 3  # samples


def run(options: Options) -> BenchResult:
    """Measure the memory of an ingestion."""
    size = options.pages * PAGE_BYTES if options.pages else options.times(FULL_BYTES, QUICK_BYTES)
    with options.store() as folder:
        file = folder.parent / "pages.jsonl"
        count = _write(file, size)
        settings = options.with_own({"embedding__backend": "fake"})
        samples = _watched(file, folder, settings)
        with MemoryPipeline.open(folder, workers=False, **settings) as pipeline:
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


def _watched(file: Path, store: Path, given: Mapping[str, Any]) -> list[tuple[float, int]]:
    """Ingest ``file``; return samples of the seconds since the start and the bytes of all processes."""
    settings = file.with_name("settings.json")
    settings.write_text(json.dumps(nested(given)), encoding="utf-8")  # YAML, too
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
    ready = [memory / MIB for _, memory in samples[len(samples) // 10 :]]  # processes start meanwhile
    note = f"{size / 1e9:.2g} GB in {count} pages, {len(samples)} samples in {samples[-1][0]:.0f} s"
    end = max(ready[-ENDING:])  # the last sample may be of processes that are closing
    return [
        Figure("memory (PSS) at the first tenth's end", "MiB", len(ready), ready[0], note=note),
        Figure("memory at the end", "MiB", ENDING, end),
        Figure("growth for a page, after that", "bytes", count, (end - ready[0]) * MIB / (0.9 * count)),
        Figure("memory at the most / at the end", "", len(ready), max(ready) / end, aims=(at_most(1.1),)),
    ]
