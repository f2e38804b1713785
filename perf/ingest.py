"""Texts a second from ``add`` to idle, beside plain encoding of the same texts; and what a page takes of all else.

The pages come in parts. A part is ingested with the model ready: from its first ``add`` until everything is embedded,
applied and written. Then another process, idle until now, encodes just the texts that the embedder was given for that
part, pages, summaries and facts, in one call of ``SentenceTransformer.encode``, while the pipeline is idle. Every other
part is ingested while a query comes every half second.

A page takes more than its own text's embedding: texts made of it are embedded too. And it takes tasks: continuity,
topics, profile and knowledge. Those that were given out are done once more, one after the other, in this process; what
the LLM pool's processes took for them, beside a model that streams its weights through the caches, and with the way
there and back, is told as well.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from mos_pipeline import MemoryPipeline, config
from mos_pipeline.messages import decode, encode
from mos_pipeline.stages.tasks import TaskStage
from perf import startup
from perf.children import Child
from perf.options import Options
from perf.pipelines import pids_of, wait_ready, watch_tasks, watch_texts
from perf.processes import cpu_seconds, disk_bytes
from perf.result import BenchResult, Figure, at_least, at_most
from perf.texts import Page, question

__all__ = ["run", "task_seconds"]

USERS = 5
QUERY_EVERY_S = 0.5
IDLE_TIMEOUT_S = 3600.0
MS = 1000.0
REAL = "torch"
LOADED = "with what its processes load for their first tasks"


@dataclass(slots=True)
class Rates:
    """Texts a second of parts, of one kind, and of plain encoding of the same texts."""

    pipeline: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    texts: int = 0

    def figures(self, name: str, aim: float) -> list[Figure]:
        """Return both rates, and their ratio part by part."""
        ratios = [mine / plain for mine, plain in zip(self.pipeline, self.plain, strict=True)]
        return [
            Figure.of(f"ingest{name}", "texts/s", self.pipeline, note=f"{self.texts} texts"),
            Figure.of(f"plain encode of what was ingested{name}", "texts/s", self.plain),
            Figure.of(f"ingest{name} / plain encode", "", ratios, at_least(aim)),
        ]


def run(options: Options) -> BenchResult:
    """Measure ingestion with the real model, starting, and the store's size."""
    source = options.source()
    pages = source[: options.pages] if source else _synthetic(options)
    quiet, asked, answers = Rates(), Rates(), list[float]()
    with options.store() as folder:
        pipeline = MemoryPipeline.open(folder, embedding__backend=REAL)
        with pipeline, _encoder(pipeline) as encoder:
            texts = watch_texts(pipeline)
            wait_ready(pipeline)
            tasks, workers = watch_tasks(pipeline), pids_of(pipeline, "llm")
            cpu_before = cpu_seconds(workers)
            for number, part in enumerate(_parts(pages, options.times(6, 2))):
                with _queries(pipeline, part, answers) if number % 2 else _no_queries():
                    spent = _ingest(pipeline, part)
                rates = asked if number % 2 else quiet
                rates.texts += len(texts)
                rates.pipeline.append(len(texts) / spent)
                rates.plain.append(len(texts) / encoder.ask("encode", texts=texts))
                texts.clear()
            cpu = cpu_seconds(workers) - cpu_before
            configuration = pipeline._engine.config.as_dict()
        figures = [
            *quiet.figures("", 0.95),
            *asked.figures(" with queries", 0.75),
            Figure.of("retrieve while ingesting", "ms", answers),
            _texts(quiet.texts + asked.texts, len(pages)),
            *_tasks(tasks, cpu, len(pages)),
            _disk(disk_bytes(folder), len(pages), real=source is not None),
        ]
    return BenchResult("ingest", configuration, [*figures, *startup.figures(options)])


def _synthetic(options: Options) -> list[Page]:
    stream = options.page_stream()
    count = options.size(1800, 200)
    return [{**page, "user_id": f"user {number * USERS // count}"} for number, page in zip(range(count), stream)]  # noqa: B905


def _parts(pages: Sequence[Page], count: int) -> Iterator[Sequence[Page]]:
    edges = [number * len(pages) // count for number in range(count + 1)]
    return (pages[start:stop] for start, stop in itertools.pairwise(edges))


@contextmanager
def _encoder(pipeline: MemoryPipeline) -> Iterator[Child]:
    settings = pipeline._engine.config.embedding
    with Child("encode", settings.model, str(settings.threads)) as encoder:
        encoder.ask("threads")  # answers when its model is loaded
        yield encoder


def _ingest(pipeline: MemoryPipeline, pages: Sequence[Page]) -> float:
    begun = time.perf_counter()
    pipeline.add_many(pages)
    pipeline.wait_idle(IDLE_TIMEOUT_S)
    return time.perf_counter() - begun


@contextmanager
def _no_queries() -> Iterator[None]:
    yield


@contextmanager
def _queries(pipeline: MemoryPipeline, pages: Sequence[Page], answers: list[float]) -> Iterator[None]:
    """Ask something every half second; note what each answer took, in milliseconds."""
    stop = Event()

    def ask() -> None:
        for number in itertools.count():
            page = pages[number % len(pages)]
            begun = time.perf_counter()
            pipeline.retrieve(page["user_id"], question(page))
            answers.append(MS * (time.perf_counter() - begun))
            if stop.wait(QUERY_EVERY_S):
                return

    thread = Thread(target=ask, name="queries")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _texts(texts: int, pages: int) -> Figure:
    note = f"{texts} texts of {pages} pages: pages, summaries and facts"
    return Figure("embedded texts for a page", "", pages, texts / pages, aims=(at_most(1.3),), note=note)


def _tasks(tasks: Sequence[tuple[str, Any]], cpu: float, pages: int) -> list[Figure]:
    """Return the processor time of ``tasks``: done again here, and ``cpu``, what the pool took for them."""
    first, again = (MS * task_seconds(tasks) / pages for _ in range(2))
    note = f"{len(tasks)} units of tasks, every word met for the first time; {again:.3g} where all words are known"
    return [
        Figure("extractive tasks, processor time for a page", "ms", pages, first, aims=(at_most(0.2),), note=note),
        Figure("the LLM pool's processor time for a page", "ms", pages, MS * cpu / pages, note=LOADED),
    ]


def task_seconds(tasks: Sequence[tuple[str, Any]]) -> float:
    """Return the processor time that the default provider takes for tasks, their way through msgpack included."""
    import mos_pipeline.stages.extractive  # noqa: F401  (the stage loads it with the first task, which is timed)

    stage, report = TaskStage(config.Llm(), config.LongTerm()), _Heard()
    stage.prepare()
    sent = [encode(task) for task in tasks]
    begun = time.process_time()
    for number, task in enumerate(sent):
        stage.accept(number, *decode(task))
        stage.step(report)
    spent = time.process_time() - begun
    if report.answers < len(tasks):
        raise RuntimeError(f"of {len(tasks)} units {len(tasks) - report.answers} could not be done")
    return spent


class _Heard:
    """Takes a stage's reports."""

    def __init__(self) -> None:
        self.answers = 0

    def started(self, unit_ids: Sequence[int]) -> None:
        """Nobody needs to know."""

    def piece(self, unit_id: int, piece: Any) -> None:
        """There are none."""

    def done(self, unit_id: int, result: Any) -> None:  # noqa: ARG002 (a stage's report)
        """Pack the result, as a worker does."""
        encode(result)
        self.answers += 1

    def failed(self, unit_id: int, message: str) -> None:
        """Leave it out; it is missed at the end."""

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        raise AssertionError(f"the extractive tasks call no model: {told}")

    def endpoint(self, down_since: float | None) -> None:
        raise AssertionError(f"the extractive tasks ask no endpoint: {down_since}")


def _disk(size: tuple[int, int], pages: int, *, real: bool) -> Figure:
    blocks, lengths = size
    note = (
        f"{pages} pages {'of the data set' if real else 'that are synthetic'}; "
        f"blocks {blocks}, lengths {lengths} bytes; the larger counts"
    )
    return Figure("disk for a page, all told", "bytes", pages, max(size) / pages, aims=(at_most(1100),), note=note)
