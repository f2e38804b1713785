"""The same work beside other libraries, in one run: ``memoryos-pro``, and ``mem0ai`` with a local Qdrant.

All get the same texts, the same embedding model's files and the same fake endpoint; ``python -m perf peers install``
installs them. What is not installed is left out, and the notes say so. They say, too, what could not be made equal.
Without an endpoint our pages a second are told for each way of embedding that starts here (``perf/variants.py``), the
peer's before and after each; for a quick look of the first way alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from mos_pipeline import MemoryPipeline
from mos_pipeline.errors import ConfigError, ModelNotFoundError, WorkerError
from mos_pipeline.stages.models import MINILM, find_model
from perf.adds import CAPACITY, Row, add_rows, in_order, openai_settings, row_of, their_rows
from perf.endpoint import endpoint
from perf.options import Options
from perf.peers import INSTALL, MEM0, MEMORYOS, Peer, peer
from perf.pipelines import NotReadyError, wait_ready, watch_texts
from perf.processes import disk_bytes
from perf.result import Aim, BenchResult, Figure, Series, at_least
from perf.texts import Page, question
from perf.timing import median, seconds
from perf.variants import VARIANTS, Variant, wanted

__all__ = ["NOT_EQUAL", "run"]

DIMENSION = 384
LATE = slice(CAPACITY, None)
USERS, THEIR_USERS = 20, 2
ROW, QUICK_ROW = 20, 11  # adds in a row
PAGES, SLOW_PAGES = 400, 40  # of one user; where each takes a second or more
INGESTED = 2000  # ours: enough to fill the pipeline
QUESTIONS = 50
QUICK_VARIANTS = 1
QUICK_TURNS = 0  # of a peer's behind each of ours
IDLE_S = 3600.0
MS, US = 1e3, 1e6
REMEMBER = '{"memory": [{"id": "0", "text": "They spoke of this and that.", "attributed_to": "user"}]}'
OURS = "mos_pipeline"

DOES_NOT_START = ConfigError, ModelNotFoundError, WorkerError, NotReadyError
NOT_EQUAL = {
    MEMORYOS: (
        "memoryos-pro works within add, in the caller's thread: its pages a second are those of adds in a row",
        "ours are those from the first add until everything is worked off",
        "memoryos-pro is given the first few of our pages, since a late add takes it a second and more",
        "its files and searches are those of pages with an endpoint that answers at once",
    ),
    MEM0: (
        "mem0ai works within add, in the caller's thread: its pages a second are those of adds in a row",
        "it keeps and embeds each of a page's two messages by itself; without its extras it searches by vectors alone",
        "mem0ai is given the first few of our pages; its adds take the longer, the more there are",
        "what an endpoint has it keep is always the same here, so its searches are measured without one",
    ),
}


def run(options: Options) -> BenchResult:
    """Measure everything that the peers which are installed allow."""
    figures, series, notes = list[Figure](), list[Series](), list[str]()
    for name, measure in ((MEMORYOS, _memoryos_beside), (MEM0, _mem0_beside)):
        other = peer(name)
        if other is None:
            notes.append(f"{name} is left out, since it is not installed: {INSTALL}")
            continue
        found = measure(options, other)
        figures += found[0]
        series += found[1]
        notes += [*NOT_EQUAL[name], *found[2]]
    configuration = options.checked(openai_settings("http://127.0.0.1"))
    return BenchResult("beside", configuration, figures, series=series, notes=notes)


T = TypeVar("T")
Found = tuple[list[Figure], list[Series], list[str]]


# ---- with an endpoint


def _memoryos_beside(options: Options, memoryos: Peer) -> Found:
    """Measure adds in a row, without pauses; pages a second once short-term memory is full; what many pages cost."""
    length = options.times(ROW, QUICK_ROW)
    # For a look those are enough that their rate is told by.
    rows = [row_of(number, length) for number in range(options.times(THEIR_USERS, 0))]
    many, stored = _pages(options, options.times(INGESTED, 100)), _pages(options, options.times(PAGES, 24))
    few = many[: options.times(SLOW_PAGES, QUICK_ROW)]
    asked_of = [stored[number * 79 % len(stored)] for number in range(options.times(QUESTIONS, 20))]
    questions = [question(page, number) for number, page in enumerate(asked_of)]
    with endpoint(options.latency_s) as slow, endpoint(0.0) as quick, options.store() as store, options.store() as far:
        with options.store() as first, options.open(first, **openai_settings(slow.base_url)) as memory:
            wait_ready(memory)
            adds = add_rows(memory, options.times(USERS, 2), 0.0, length)
            texts = watch_texts(memory)
            rate = _rate(memory, many)
        ours = _asked(options, store, stored, questions, openai_settings(quick.base_url))
        slow_rows = [Row(pages, slow.base_url, far / "slow") for pages in (*rows, few)]
        told = their_rows(memoryos, [*slow_rows, Row(stored, quick.base_url, far / "quick")], questions, pause_s=0.0)
        sizes = max(disk_bytes(store)) / len(stored), max(disk_bytes(far / "quick")) / len(stored)
    *their_adds, row, _ = told["seconds"]
    their_adds = their_adds or [row]
    their_rate = len(row[LATE]) / sum(row[LATE])  # its first pages cost it nothing
    theirs = [MS * spent for spent in told["asked"]]
    note = (
        f"{len(many)} pages of ours, of which {len(texts)} texts were embedded, {len(row[LATE])} late ones of "
        f"{MEMORYOS}; {options.latency_ms:g} ms an answer"
    )
    rates = "ingest with the endpoint", "pages/s", (rate, their_rate), (len(many), len(row[LATE]))
    where = f"at {len(stored)} pages"
    disk = f"disk for a page {where}", "bytes", sizes, (len(stored), len(stored))
    figures = [
        *_late(adds, their_adds),
        *_pair(*rates, at_least(100), MEMORYOS, note),
        Figure.of(f"retrieve {where}", "ms", ours),
        Figure.of(f"retrieve {where}, {MEMORYOS}", "ms", theirs),
        Figure.ratio(f"retrieve {where}, {MEMORYOS} over ours", theirs, ours, at_least(14)),
        *_pair(*disk, at_least(16), MEMORYOS, ours_over=False),
    ]
    series = [
        *(replace(in_order(name, each), plot="adds without pauses") for name, each in _both(adds, their_adds)),
        *(Series.bar("ingest with the endpoint", name, "pages/s", each) for name, each in _both(rate, their_rate)),
        *(Series.bar(f"retrieve {where}, median", name, "ms", median(each)) for name, each in _both(ours, theirs)),
        *(Series.bar(f"disk for a page {where}", name, "bytes", each) for name, each in _both(*sizes)),
    ]
    return figures, series, []


def _both(ours: T, theirs: T) -> list[tuple[str, T]]:
    return [(OURS, ours), (MEMORYOS, theirs)]


def _late(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> list[Figure]:
    late = [[US * spent for user in seconds for spent in user[LATE]] for seconds in (ours, theirs)]
    return [
        Figure.of("late add", "µs", late[0]),
        Figure.of(f"late add, {MEMORYOS}", "µs", late[1]),
        Figure.ratio(f"late add, {MEMORYOS} over ours", late[1], late[0], at_least(50_000)),
    ]


def _asked(
    options: Options, store: Path, pages: Sequence[Page], questions: Sequence[str], settings: dict[str, Any]
) -> list[float]:
    """Fill ``store`` with pages of one user; return what each question takes then, in milliseconds."""
    with options.open(store, **settings) as memory:
        wait_ready(memory)
        memory.add_many(pages)
        memory.wait_idle(IDLE_S)
        return [MS * seconds(partial(memory.retrieve, "user", text)) for text in questions]


# ---- without


def _mem0_beside(options: Options, mem0: Peer) -> Found:
    variants = wanted(options)[: options.times(len(VARIANTS), QUICK_VARIANTS)]
    pages = _pages(options, options.times(max(variant.pages for variant in variants), 100))
    few, told = pages[: options.times(PAGES, 12)], _pages(options, options.times(SLOW_PAGES, 3))
    with endpoint(options.latency_s, REMEMBER) as asked:
        found = _mem0(options, mem0, few, asked.base_url, [question(page) for page in few[:QUESTIONS]], told)
        calls = asked.told().calls
    theirs = [len(few) / sum(found["seconds"])]
    searches = [MS * spent for spent in found["asked"]]
    adds = [US * spent for spent in found["told"]]
    note = f"{calls / len(told):.3g} calls a page; {found['remembered']} memories of {len(told)} pages"
    figures, series, notes = list[Figure](), list[Series](), list[str]()
    for variant in variants:
        own = pages[: variant.pages]
        try:
            rate = _ingested(options, variant, own)
        except DOES_NOT_START as error:
            notes.append(f"{variant.name} is left out: {error}")
            continue
        turns = options.times(1, QUICK_TURNS)  # the machine may be another a minute later
        theirs += [len(few) / sum(_mem0(options, mem0, few)["seconds"]) for _ in range(turns)]
        name, aim = f"ingest without an endpoint, {variant.name}", at_least(variant.over_mem0)
        figures += [
            Figure(name, "pages/s", len(own), rate),
            Figure(f"{name}, ours over {MEM0}", "", len(own), rate / fmean(theirs[-2:]), aims=(aim,)),
        ]
        series.append(Series.bar("ingest without an endpoint", f"{OURS}, {variant.name}", "pages/s", rate))
    figures = [
        Figure.of(f"ingest without an endpoint, {MEM0}", "pages/s", theirs, note=f"{len(few)} pages each time"),
        Figure.of(f"search, {MEM0}", "ms", searches, note=f"at {len(few)} pages"),
        Figure.of(f"add with the endpoint, {MEM0}", "µs", adds, note=note),
        *figures,
    ]
    return figures, [Series.bar("ingest without an endpoint", MEM0, "pages/s", median(theirs)), *series], notes


# ---- both


def _pages(options: Options, count: int) -> list[Page]:
    return [{**page, "user_id": "user"} for page in islice(options.page_stream(), count)]


def _ingested(options: Options, variant: Variant, pages: Sequence[Page]) -> float:
    """Return how many pages a second are worked off in a pipeline of its own.

    Raises:
        NotReadyError: it has other vectors than it is asked for.
    """
    with options.store() as store, options.open(store, **variant.settings) as memory:
        wait_ready(memory)
        rate, vectors = _rate(memory, pages), {"tier": "full", **memory.stats().model}
    for key, wanted_value in variant.settings.items():
        name = key.removeprefix("embedding__")
        if vectors.get(name, wanted_value) != wanted_value:
            raise NotReadyError(f"its vectors have {name} {vectors[name]}, not {wanted_value}")
    return rate


def _rate(memory: MemoryPipeline, pages: Sequence[Page]) -> float:
    begun = time.perf_counter()
    memory.add_many(pages)
    memory.wait_idle(IDLE_S)
    return len(pages) / (time.perf_counter() - begun)


def _mem0(
    options: Options,
    mem0: Peer,
    pages: Sequence[Page],
    base_url: str = "http://127.0.0.1",
    questions: Sequence[str] = (),
    told: Sequence[Page] = (),
) -> dict[str, Any]:
    texts = ([[page["user_input"], page["agent_response"]] for page in some] for some in (pages, told))
    with options.store() as folder:
        folder.mkdir()
        task = {"questions": list(questions), "folder": str(folder), "base_url": base_url, "dimension": DIMENSION}
        task |= dict(zip(("pages", "told"), texts, strict=True)) | {"model": str(find_model(MINILM).folder)}
        found: dict[str, Any] = mem0.run(task)
    return found


def _pair(
    name: str,
    unit: str,
    values: tuple[float, float],
    samples: tuple[int, int],
    aim: Aim,
    other: str,
    note: str = "",
    *,
    ours_over: bool = True,
) -> list[Figure]:
    """Return ours, theirs, and the ratio of the two, ours over theirs or the other way round."""
    ours, theirs = values
    ratio, told = (ours / theirs, f"ours over {other}") if ours_over else (theirs / ours, f"{other} over ours")
    return [
        Figure(name, unit, samples[0], ours),
        Figure(f"{name}, {other}", unit, samples[1], theirs),
        Figure(f"{name}, {told}", "", min(samples), ratio, aims=(aim,), note=note),
    ]
