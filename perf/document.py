"""The four scenarios by which a mended MemoryOS is judged; each passes or fails by ratios within this run.

``python -m perf document`` returns 1 where one fails. The endpoint is a fake one, an answer takes ``--latency-ms``.

- cliff: 20 adds in a row, for one fresh user after the other: the adds 11 to 15 over the adds 1 to 5;
- retrieval after spill-over: questions to a user whose short-term memory has run over, over the same questions while
  all pages were still in it; and whether the page is found that a question's words come from;
- background: while calls are in flight, the longest ``add`` and the longest ``retrieve`` over what one call takes;
- compression: the store's bytes over those of the original's files, plain JSON, of the same memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from mos_pipeline.config import load_config
from mos_pipeline.exporting import export_memoryos
from perf.adds import CAPACITY, cliff, come_to_rest, in_order, openai_settings, our_adds
from perf.endpoint import endpoint
from perf.options import LATENCY_MS, Options, milliseconds
from perf.pipelines import wait_ready
from perf.processes import CpuShare, disk_bytes
from perf.result import BenchResult, Figure, at_least, at_most
from perf.telling import begun, tell
from perf.texts import Page, question, synthetic_pages

__all__ = ["main", "run"]

CLIFF_USERS = 20
EARLY, LATE = slice(0, 5), slice(10, 15)
BEFORE, AFTER = CAPACITY - 1, 20  # pages: all in short-term memory, and most of them out of it
ASKED_USERS, QUESTIONS = 20, 3
BUSY_USERS = 16
FRESH_SEED, BUSY_SEEDS = 1000, 2000  # in no use before: texts that are known would not be embedded again
STORED_USERS, STORED_PAGES = 3, 300
IDLE_S = 1800.0
MS = 1000.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios, print the table; return 1 where one fails, else 0."""
    given = _parser().parse_args(arguments)
    report, share = begun(given), CpuShare()
    result = run(Options(quick=given.quick, folder=given.dir, latency_ms=given.latency_ms))
    missed = tell(report, [replace(result, others=share.others())], given.json)
    for name, passed in verdicts(result).items():
        print(f"{'passed' if passed else 'FAILED'}: {name}")
    return int(missed)


def run(options: Options) -> BenchResult:
    """Measure all four scenarios."""
    with endpoint(options.latency_s) as asked:
        settings = options.with_own(openai_settings(asked.base_url))
        adds = our_adds(options, settings, options.times(CLIFF_USERS, 4))
        figures = [*cliff("cliff, add", adds, EARLY, LATE, at_most(1.1))]
        with options.store() as store, MemoryPipeline.open(store, **settings) as memory:
            wait_ready(memory)
            figures += _retrieval(memory, options.times(ASKED_USERS, 4))
            figures += _background(memory, options.times(BUSY_USERS, 4), options.latency_ms)
        figures += _compression(options, settings)
    return BenchResult("document", options.checked(settings), figures, series=[in_order("mos_pipeline", adds)])


def verdicts(result: BenchResult) -> dict[str, bool]:
    """Return which scenarios pass: those all of whose aims are met."""
    passed: dict[str, bool] = {}
    for figure in result.figures:
        scenario = figure.name.partition(",")[0]
        passed[scenario] = passed.get(scenario, True) and figure.met is not False
    return passed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m perf document", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--latency-ms", type=milliseconds, default=LATENCY_MS, metavar="MS", help="of the fake endpoint"
    )
    parser.add_argument("--quick", action="store_true", help="fewer users: rougher")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where stores are made, and removed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser


def _retrieval(memory: MemoryPipeline, users: int) -> list[Figure]:
    before, after, found = list[float](), list[float](), list[bool]()
    for number in range(users):
        pages = list(islice(synthetic_pages(f"asked{number}", number), AFTER))
        for page in pages[:BEFORE]:
            memory.add(**page)
        before += [_ask(memory, page)[0] for page in pages[:QUESTIONS]]
        for page in pages[BEFORE:]:
            memory.add(**page)
        come_to_rest(memory)
        for page in pages[:QUESTIONS]:
            spent, there = _ask(memory, page)
            after.append(spent)
            found.append(there)
    share = sum(found) / len(found)
    return [
        Figure.of(f"retrieval, {BEFORE} pages in short-term memory", "ms", before),
        Figure.of(f"retrieval, {AFTER} pages after spill-over", "ms", after),
        Figure.ratio("retrieval, after over before", after, before, at_most(1.5)),
        Figure("retrieval, the question's own page is found", "", len(found), share, aims=(at_least(0.95),)),
    ]


def _ask(memory: MemoryPipeline, page: Page) -> tuple[float, bool]:
    """Return the milliseconds of a question by words of ``page``, and whether that page was found."""
    asked = question(page)
    begun = time.perf_counter()
    hits = memory.retrieve(page["user_id"], asked).pages
    return MS * (time.perf_counter() - begun), any(hit.page.user_input == page["user_input"] for hit in hits)


def _background(memory: MemoryPipeline, users: int, call_ms: float) -> list[Figure]:
    """Measure while the endpoint has calls of full batches in work: one batch of each user."""
    adds, questions = list[float](), list[float]()
    old = next(synthetic_pages("asked0", 0))
    fresh = synthetic_pages("beside", FRESH_SEED)
    for number in range(users):
        for page in islice(synthetic_pages(f"busy{number}", BUSY_SEEDS + number), CAPACITY):
            memory.add(**page)
        deadline = time.monotonic() + IDLE_S
        while not memory.stats().workers["llm"].waiting:
            if time.monotonic() > deadline:
                raise RuntimeError(f"a full batch's calls have not begun within {IDLE_S:g} s")
            time.sleep(0.001)
        while memory.stats().workers["llm"].waiting:
            begun = time.perf_counter()
            memory.add(**next(fresh))
            adds.append(MS * (time.perf_counter() - begun))
            questions.append(_ask(memory, old)[0])
    come_to_rest(memory)
    return [
        Figure.of("background, add while calls are in flight", "ms", adds),
        Figure.of("background, retrieve while calls are in flight", "ms", questions),
        _longest("background, longest add over a call", adds, call_ms, 0.1),
        _longest("background, longest retrieve over a call", questions, call_ms, 0.5),
    ]


def _longest(name: str, samples: Sequence[float], call_ms: float, most: float) -> Figure:
    return Figure(name, "", len(samples), max(samples) / call_ms, aims=(at_most(most),))


def _compression(options: Options, settings: dict[str, Any]) -> list[Figure]:
    pages = options.size(STORED_PAGES, 60)
    with (
        tempfile.TemporaryDirectory(prefix="mos-perf-", dir=options.folder) as folder,
        MemoryPipeline.open(Path(folder) / "store", **settings) as memory,
    ):
        store, out = Path(folder) / "store", Path(folder) / "original"
        for number in range(STORED_USERS):
            memory.add_many(list(islice(synthetic_pages(f"stored{number}", number), pages)))
        memory.wait_idle(IDLE_S)
        memory.close()
        ours = max(disk_bytes(store))
        written = export_memoryos(store, load_config(overrides=settings), out, None, None, lambda: None)
        theirs = disk_bytes(out)[1]
    count = STORED_USERS * pages
    if written.pages != count:
        raise RuntimeError(f"{written.pages} of {count} pages are in the original's files")
    return [
        Figure("compression, our bytes a page", "bytes", count, ours / count),
        Figure("compression, the original's bytes a page", "bytes", count, theirs / count),
        Figure("compression, ours over the original's", "", count, ours / theirs, aims=(at_most(0.5),)),
    ]
