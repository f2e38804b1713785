"""The same work beside other libraries, in one run: ``memoryos-pro``, and ``mem0ai`` with a local Qdrant.

All get the same texts, the same embedding model's files and the same fake endpoint; ``python -m perf peers install``
installs them. What can't be made equal: they add a page when they are asked to, in the caller's thread, so their pages
a second are those of adds one after the other, ours those from the first ``add`` until everything is worked off.
``mem0ai`` keeps each of a page's two messages as a memory, embeds them one by one and, without its extras, searches by
vectors alone; with an endpoint it keeps what that tells it to, which is always the same here, so its searches are
measured without. The original's files are those of pages with an endpoint that answers at once.
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
from perf.cliff import CAPACITY, openai_settings, our_adds, their_adds
from perf.endpoint import endpoint
from perf.options import Options
from perf.peers import Peer, peer
from perf.pipelines import wait_ready
from perf.processes import disk_bytes
from perf.result import BenchResult, Figure, at_least
from perf.texts import Page, question

__all__ = ["run"]

MEMORYOS, MEM0 = "memoryos-pro", "mem0ai"
LATENCY_S = 0.35
DIMENSION = 384
LATE = slice(CAPACITY, None)
USERS, THEIR_USERS = 20, 2
PAGES, SLOW_PAGES = 400, 40  # of one user; where each takes a second or more
INGESTED = 2000  # ours: enough to fill the pipeline
QUESTIONS = 50
IDLE_S = 3600.0
MS, US = 1e3, 1e6
REMEMBER = '{"memory": [{"id": "0", "text": "They spoke of this and that.", "attributed_to": "user"}]}'


def run(options: Options) -> BenchResult:
    """Measure everything that the peers which are installed allow.

    Raises:
        RuntimeError: none of them is.
    """
    memoryos, mem0 = peer(MEMORYOS), peer(MEM0)
    if memoryos is None and mem0 is None:
        raise RuntimeError("neither memoryos-pro nor mem0ai is installed: python -m perf peers install")
    figures = list[Figure]()
    if memoryos is not None:
        figures += [*_late_adds(options, memoryos), *_with_endpoint(options, memoryos), *_stored(options, memoryos)]
    if mem0 is not None:
        figures += [*_plain(options, mem0), *_remembering(options, mem0)]
    return BenchResult("beside", openai_settings("http://127.0.0.1"), figures)


def _pages(options: Options, count: int) -> list[Page]:
    return [{**page, "user_id": "user"} for page in islice(options.page_stream(), count)]


def _texts(pages: Sequence[Page]) -> list[list[str]]:
    return [[page["user_input"], page["agent_response"]] for page in pages]


def _late_adds(options: Options, memoryos: Peer) -> list[Figure]:
    """Measure adds in a row, without pauses, once short-term memory is full."""
    with endpoint(LATENCY_S) as asked:
        ours = our_adds(options, openai_settings(asked.base_url), options.times(USERS, 3), pause_s=0.0)
        theirs = their_adds(options, memoryos, asked.base_url, options.times(THEIR_USERS, 1), pause_s=0.0)
    late = [[US * spent for user in seconds for spent in user[LATE]] for seconds in (ours, theirs)]
    return [
        Figure.of("late add", "µs", late[0]),
        Figure.of(f"late add, {MEMORYOS}", "µs", late[1]),
        Figure.ratio(f"late add, {MEMORYOS} over ours", late[1], late[0], at_least(50_000)),
    ]


def _with_endpoint(options: Options, memoryos: Peer) -> list[Figure]:
    pages = _pages(options, options.times(INGESTED, 200))
    few = pages[: options.times(SLOW_PAGES, 12)]
    with endpoint(LATENCY_S) as asked:
        ours = _ingested(options, pages, **openai_settings(asked.base_url))
        seconds = _memoryos(options, memoryos, few, asked.base_url)["seconds"][0]
    theirs = len(few[CAPACITY:]) / sum(seconds[CAPACITY:])  # its first pages cost it nothing
    note = f"{len(pages)} pages of ours, {len(few) - CAPACITY} late ones of {MEMORYOS}"
    return [
        Figure("ingest with the endpoint", "pages/s", len(pages), ours),
        Figure(f"ingest with the endpoint, {MEMORYOS}", "pages/s", len(few) - CAPACITY, theirs),
        _ratio(f"ingest with the endpoint, ours over {MEMORYOS}", ours, theirs, len(few), 100, note),
    ]


def _stored(options: Options, memoryos: Peer) -> list[Figure]:
    """Measure retrieving and bytes at ``PAGES`` pages."""
    pages = _pages(options, options.times(PAGES, 40))
    asked_of = [pages[number * 79 % len(pages)] for number in range(QUESTIONS)]
    questions = [question(page, number) for number, page in enumerate(asked_of)]
    with endpoint(0.0) as asked, options.store() as store, tempfile.TemporaryDirectory(dir=options.folder) as folder:
        with MemoryPipeline.open(store, **openai_settings(asked.base_url)) as memory:
            wait_ready(memory)
            memory.add_many(pages)
            memory.wait_idle(IDLE_S)
            ours = [MS * _seconds(memory, text) for text in questions]
        found = _memoryos(options, memoryos, pages, asked.base_url, questions, folder)
        theirs = [MS * spent for spent in found["asked"]]
        sizes = max(disk_bytes(store)) / len(pages), max(disk_bytes(Path(folder))) / len(pages)
    where = f"at {len(pages)} pages"
    return [
        Figure.of(f"retrieve {where}", "ms", ours),
        Figure.of(f"retrieve {where}, {MEMORYOS}", "ms", theirs),
        Figure.ratio(f"retrieve {where}, {MEMORYOS} over ours", theirs, ours, at_least(14)),
        Figure(f"disk for a page {where}", "bytes", len(pages), sizes[0]),
        Figure(f"disk for a page {where}, {MEMORYOS}", "bytes", len(pages), sizes[1]),
        _ratio(f"disk for a page {where}, {MEMORYOS} over ours", sizes[1], sizes[0], len(pages), 16),
    ]


def _plain(options: Options, mem0: Peer) -> list[Figure]:
    """Measure ingesting without a language model."""
    pages = _pages(options, options.times(INGESTED, 200))
    few = pages[: options.times(PAGES, 20)]
    questions = [question(page) for page in few[:QUESTIONS]]
    ours = _ingested(options, pages)
    found = _mem0(options, mem0, few, "http://127.0.0.1:9/v1", questions, infer=False)
    theirs = len(few) / sum(found["seconds"])
    return [
        Figure("ingest without an endpoint", "pages/s", len(pages), ours),
        Figure(f"ingest without an endpoint, {MEM0}", "pages/s", len(few), theirs),
        _ratio(f"ingest without an endpoint, ours over {MEM0}", ours, theirs, len(few), 3.5),
        Figure.of(f"search, {MEM0}", "ms", [MS * spent for spent in found["asked"]], note=f"at {len(few)} pages"),
    ]


def _remembering(options: Options, mem0: Peer) -> list[Figure]:
    few = _pages(options, options.times(SLOW_PAGES, 6))
    with endpoint(LATENCY_S, REMEMBER) as asked:
        found = _mem0(options, mem0, few, asked.base_url, [], infer=True)
        calls = asked.told().calls
    note = f"{calls / len(few):.3g} calls a page; {found['kept']} memories of {len(few)} pages"
    seconds = [US * spent for spent in found["seconds"]]
    return [Figure.of(f"add with the endpoint, {MEM0}", "µs", seconds, note=note)]


def _ingested(options: Options, pages: Sequence[Page], **settings: Any) -> float:
    """Return how many pages a second are worked off."""
    with options.store() as store, MemoryPipeline.open(store, **settings) as memory:
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
    pages: Sequence[Page],
    base_url: str,
    questions: Sequence[str] = (),
    folder: str | None = None,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=options.folder) as scratch:
        task = {"users": [_texts(pages)], "questions": list(questions), "pause_s": 0.0, "capacity": CAPACITY}
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


def _ratio(name: str, above: float, below: float, samples: int, aim: float, note: str = "") -> Figure:
    return Figure(name, "", samples, above / below, aims=(at_least(aim),), note=note)
