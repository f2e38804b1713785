"""The same work beside other libraries, in one run: ``memoryos-pro``, and ``mem0ai`` with a local Qdrant.

All get the same texts, the same embedding model's files and the same fake endpoint; ``python -m perf peers install``
installs them. What is not installed is left out, and the notes say so. They say, too, what could not be made equal.
Without an endpoint our pages a second are told for each way of embedding that starts here (``perf/variants.py``).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from mos_pipeline.stages.models import MINILM, find_model
from perf.adds import CAPACITY, in_order, openai_settings, our_adds
from perf.endpoint import endpoint
from perf.options import Options
from perf.peers import INSTALL, MEM0, MEMORYOS, Peer, peer
from perf.pipelines import wait_ready
from perf.processes import disk_bytes
from perf.result import Aim, BenchResult, Figure, Series, at_least
from perf.texts import Page, question, synthetic_pages
from perf.timing import median, percentile
from perf.variants import Variant, wanted

__all__ = ["NOT_EQUAL", "run"]

DIMENSION = 384
LATE = slice(CAPACITY, None)
USERS, THEIR_USERS = 20, 2
ROW, QUICK_ROW = 20, 12  # adds in a row
PAGES, SLOW_PAGES = 400, 40  # of one user; where each takes a second or more
INGESTED = 2000  # ours: enough to fill the pipeline
QUESTIONS = 50
IDLE_S = 3600.0
MS, US = 1e3, 1e6
REMEMBER = '{"memory": [{"id": "0", "text": "They spoke of this and that.", "attributed_to": "user"}]}'
OURS = "mos_pipeline"
NOWHERE = "http://127.0.0.1:9/v1"  # no endpoint is asked

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


Found = tuple[list[Figure], list[Series], list[str]]


# ---- with an endpoint


def _memoryos_beside(options: Options, memoryos: Peer) -> Found:
    figures, series = _adding(options, memoryos)
    stored, bars = _stored(options, memoryos)
    return [*figures, *stored], [*series, *bars], []


def _adding(options: Options, memoryos: Peer) -> tuple[list[Figure], list[Series]]:
    """Measure adds in a row, without pauses, and pages a second once short-term memory is full."""
    length = options.times(ROW, QUICK_ROW)
    pages = _pages(options, options.times(INGESTED, 200))
    few = pages[: options.times(SLOW_PAGES, QUICK_ROW)]
    with endpoint(options.latency_s) as asked:
        settings = openai_settings(asked.base_url)
        ours = our_adds(options, settings, options.times(USERS, 3), pause_s=0.0, adds=length)
        rate = _ingested(options, pages, **settings)
        users = [list(islice(synthetic_pages("user", n), length)) for n in range(options.times(THEIR_USERS, 1))]
        *theirs, row = _memoryos(options, memoryos, [*users, few], asked.base_url)["seconds"]
    late = [[US * spent for user in seconds for spent in user[LATE]] for seconds in (ours, theirs)]
    their_rate = len(row[LATE]) / sum(row[LATE])  # its first pages cost it nothing
    note = f"{len(pages)} pages of ours, {len(row[LATE])} late ones of {MEMORYOS}; {options.latency_ms:g} ms an answer"
    rates = "ingest with the endpoint", "pages/s", (rate, their_rate), (len(pages), len(row[LATE]))
    return [
        Figure.of("late add", "µs", late[0]),
        Figure.of(f"late add, {MEMORYOS}", "µs", late[1]),
        Figure.ratio(f"late add, {MEMORYOS} over ours", late[1], late[0], at_least(50_000)),
        *_pair(*rates, at_least(100), MEMORYOS, note),
    ], [
        *(
            Series("adds without pauses", each.name, each.x, each.y, each.points)
            for each in (in_order(OURS, ours), in_order(MEMORYOS, theirs))
        ),
        Series.bar("ingest with the endpoint", OURS, "pages/s", rate),
        Series.bar("ingest with the endpoint", MEMORYOS, "pages/s", their_rate),
    ]


def _stored(options: Options, memoryos: Peer) -> tuple[list[Figure], list[Series]]:
    """Measure retrieving and bytes at ``PAGES`` pages."""
    pages = _pages(options, options.times(PAGES, 40))
    asked_of = [pages[number * 79 % len(pages)] for number in range(QUESTIONS)]
    questions = [question(page, number) for number, page in enumerate(asked_of)]
    with endpoint(0.0) as asked, options.store() as store, tempfile.TemporaryDirectory(dir=options.folder) as folder:
        with options.open(store, **openai_settings(asked.base_url)) as memory:
            wait_ready(memory)
            memory.add_many(pages)
            memory.wait_idle(IDLE_S)
            ours = [MS * _seconds(memory, text) for text in questions]
        found = _memoryos(options, memoryos, [pages], asked.base_url, questions, folder)
        theirs = [MS * spent for spent in found["asked"]]
        sizes = max(disk_bytes(store)) / len(pages), max(disk_bytes(Path(folder))) / len(pages)
    where = f"at {len(pages)} pages"
    return [
        Figure.of(f"retrieve {where}", "ms", ours),
        Figure.of(f"retrieve {where}, {MEMORYOS}", "ms", theirs),
        Figure.ratio(f"retrieve {where}, {MEMORYOS} over ours", theirs, ours, at_least(14)),
        *_pair(f"disk for a page {where}", "bytes", sizes, (len(pages),) * 2, at_least(16), MEMORYOS, ours_over=False),
    ], [
        *(
            Series.bar(f"retrieve {where}", f"{name}, {told}", "ms", value)
            for name, spent in ((OURS, ours), (MEMORYOS, theirs))
            for told, value in (("median", median(spent)), ("p99", percentile(spent, 0.99)))
        ),
        Series.bar(f"disk for a page {where}", OURS, "bytes", sizes[0]),
        Series.bar(f"disk for a page {where}", MEMORYOS, "bytes", sizes[1]),
    ]


# ---- without


def _mem0_beside(options: Options, mem0: Peer) -> Found:
    variants, missing = wanted(options)
    most = max(variant.pages for variant in variants)
    pages = _pages(options, options.times(most, 200))
    few = pages[: options.times(PAGES, 20)]
    questions = [question(page) for page in few[:QUESTIONS]]
    found = _mem0(options, mem0, few, NOWHERE, questions, infer=False)
    theirs = len(few) / sum(found["seconds"])
    searches = [MS * spent for spent in found["asked"]]
    figures = [
        Figure("ingest without an endpoint, mem0ai", "pages/s", len(few), theirs),
        Figure.of(f"search, {MEM0}", "ms", searches, note=f"at {len(few)} pages"),
    ]
    series = [Series.bar("ingest without an endpoint", MEM0, "pages/s", theirs)]
    for variant in variants:
        mine, rate = _of_variant(options, variant, pages, theirs)
        figures += mine
        series.append(Series.bar("ingest without an endpoint", f"{OURS}, {variant.name}", "pages/s", rate))
    return [*figures, _remembering(options, mem0)], series, missing


def _of_variant(options: Options, variant: Variant, pages: Sequence[Page], theirs: float) -> tuple[list[Figure], float]:
    own = pages[: variant.pages]
    rate = _ingested(options, own, **variant.settings)
    name = f"ingest without an endpoint, {variant.name}"
    return [
        Figure(name, "pages/s", len(own), rate),
        Figure(f"{name}, ours over {MEM0}", "", len(own), rate / theirs, aims=(at_least(variant.over_mem0),)),
    ], rate


def _remembering(options: Options, mem0: Peer) -> Figure:
    few = _pages(options, options.times(SLOW_PAGES, 3))
    with endpoint(options.latency_s, REMEMBER) as asked:
        found = _mem0(options, mem0, few, asked.base_url, [], infer=True)
        calls = asked.told().calls
    note = f"{calls / len(few):.3g} calls a page; {found['kept']} memories of {len(few)} pages"
    return Figure.of(f"add with the endpoint, {MEM0}", "µs", [US * spent for spent in found["seconds"]], note=note)


# ---- both


def _pages(options: Options, count: int) -> list[Page]:
    return [{**page, "user_id": "user"} for page in islice(options.page_stream(), count)]


def _texts(pages: Sequence[Page]) -> list[list[str]]:
    return [[page["user_input"], page["agent_response"]] for page in pages]


def _ingested(options: Options, pages: Sequence[Page], **settings: Any) -> float:
    """Return how many pages a second are worked off."""
    with options.store() as store, options.open(store, **settings) as memory:
        wait_ready(memory)
        begun = time.perf_counter()
        memory.add_many(pages)
        memory.wait_idle(IDLE_S)
        return len(pages) / (time.perf_counter() - begun)


def _seconds(memory: MemoryPipeline, text: str) -> float:
    begun = time.perf_counter()
    memory.retrieve("user", text)
    return time.perf_counter() - begun


def _memoryos(
    options: Options,
    memoryos: Peer,
    users: Sequence[Sequence[Page]],
    base_url: str,
    questions: Sequence[str] = (),
    folder: str | None = None,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=options.folder) as scratch:
        task = {"users": list(map(_texts, users)), "questions": list(questions), "pause_s": 0.0, "capacity": CAPACITY}
        found: dict[str, Any] = memoryos.run({**task, **_common(folder or scratch, base_url)})
    return found


def _mem0(
    options: Options, mem0: Peer, pages: Sequence[Page], base_url: str, questions: Sequence[str], *, infer: bool
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=options.folder) as folder:
        task = {"pages": _texts(pages), "questions": list(questions), "infer": infer, "dimension": DIMENSION}
        found: dict[str, Any] = mem0.run({**task, **_common(folder, base_url)})
    return found


def _common(folder: str, base_url: str) -> dict[str, str]:
    return {"folder": folder, "model": str(find_model(MINILM).folder), "base_url": base_url}


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
