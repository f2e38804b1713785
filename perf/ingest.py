"""Texts a second from ``add`` to idle, beside plain encoding of the same texts; and what a page takes of all else.

The pages come in parts. A part is ingested with the model ready: from its first ``add`` until everything is embedded,
applied and written. Then other processes, idle until now, encode just the texts that the embedder was given for that
part, pages, summaries and facts, in one call of ``SentenceTransformer.encode``, while the pipeline is idle: one by
torch in fp32, which is plain encoding, and, where the pipeline has another backend, precision or tier, one by that: the
backend's own raw rate. Of more texts than ``ENCODED`` evenly drawn ones are encoded. Every other part is ingested while
a query comes every half second.

A page takes more than its own text's embedding: texts made of it are embedded too. And it takes tasks: continuity,
topics, profile and knowledge (``perf/tasks.py``).
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from threading import Event, Thread

from mos_pipeline import MemoryPipeline, config
from perf import startup, tasks
from perf.children import Child
from perf.options import Options
from perf.pipelines import pids_of, wait_ready, watch_tasks, watch_texts
from perf.processes import cpu_seconds, disk_bytes
from perf.result import Aim, BenchResult, Figure, at_least, at_most
from perf.texts import Page, question
from perf.timeline import Timeline
from perf.variants import STATIC, Variant, is_plain, plain, variant_of

__all__ = ["run"]

USERS = 5
ENCODED = 1000  # texts of a part
QUERY_EVERY_S = 0.5
IDLE_TIMEOUT_S = 3600.0
MS = 1000.0


@dataclass(slots=True)
class Rates:
    """Texts a second of parts, of one kind, of plain encoding of the same texts, and of the backend's own."""

    pipeline: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    texts: int = 0

    def figures(self, name: str, plain: Aim, raw: Aim | None) -> list[Figure]:
        """Return all rates, and their ratios part by part."""
        return [
            Figure.of(f"ingest{name}", "texts/s", self.pipeline, note=f"{self.texts} texts"),
            Figure.of(f"plain fp32 encode of what was ingested{name}", "texts/s", self.plain),
            Figure.of(f"ingest{name} / plain fp32 encode", "", _over(self.pipeline, self.plain), plain),
            *self._by_raw(name, raw),
        ]

    def _by_raw(self, name: str, aim: Aim | None) -> list[Figure]:
        if not self.raw:
            return []
        ratios = _over(self.pipeline, self.raw)
        return [
            Figure.of(f"the backend's own raw rate{name}", "texts/s", self.raw),
            Figure.of(f"ingest{name} / the backend's own raw rate", "", ratios, *(() if aim is None else (aim,))),
        ]


def _over(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [mine / theirs for mine, theirs in zip(above, below, strict=True)]


def run(options: Options) -> BenchResult:
    """Measure ingestion with the real model, starting, and the store's size."""
    source = options.source()
    with options.store() as folder, options.open(folder) as pipeline:
        settings = pipeline._engine.config.embedding
        variant = variant_of(settings)
        pages = source[: options.pages] if source else _synthetic(options, variant)
        quiet, asked, answers = Rates(), Rates(), list[float]()
        with _encoders(settings) as encoders:
            texts = watch_texts(pipeline)
            wait_ready(pipeline)
            given, workers = watch_tasks(pipeline), pids_of(pipeline, "llm")
            cpu_before, timeline = cpu_seconds(workers), Timeline(pipeline)
            for number, part in enumerate(_parts(pages, options.times(6, 2))):
                rates = asked if number % 2 else quiet
                with _queries(pipeline, part, answers) if number % 2 else _no_queries(), timeline.watched():
                    spent = _ingest(pipeline, part)
                _note(rates, texts, spent, encoders)
            cpu = cpu_seconds(workers) - cpu_before
            configuration = pipeline._engine.config.as_dict()
        pipeline.close()
        figures = [
            *quiet.figures("", at_least(variant.over_plain), variant.raw_aim),
            *asked.figures(" with queries", at_least(0.75), None),
            Figure.of("retrieve while ingesting", "ms", answers),
            _texts(quiet.texts + asked.texts, len(pages)),
            *tasks.figures(given, cpu, len(pages)),
            _disk(disk_bytes(folder), len(pages), real=source is not None, static=variant is STATIC),
        ]
    return BenchResult("ingest", configuration, [*figures, *startup.figures(options)], series=timeline.series())


def _synthetic(options: Options, variant: Variant) -> list[Page]:
    stream = options.page_stream()
    count = options.size(variant.pages, 120)
    return [{**page, "user_id": f"user {number * USERS // count}"} for number, page in zip(range(count), stream)]  # noqa: B905


def _parts(pages: Sequence[Page], count: int) -> Iterator[Sequence[Page]]:
    edges = [number * len(pages) // count for number in range(count + 1)]
    return (pages[start:stop] for start, stop in itertools.pairwise(edges))


@contextmanager
def _encoders(settings: config.Embedding) -> Iterator[tuple[Child, Child | None]]:
    """Provide processes that encode plainly, and by the pipeline's own backend: the same one where these are the same.

    There is no second one for the static tier, which does in no time what the rest of the pipeline takes its time for.
    """
    with ExitStack() as stack:
        plainly = stack.enter_context(_encoder(plain(settings)))
        if settings.tier == "static":
            yield plainly, None
        else:
            yield plainly, plainly if is_plain(settings) else stack.enter_context(_encoder(settings))


@contextmanager
def _encoder(settings: config.Embedding) -> Iterator[Child]:
    with Child("raw", json.dumps(asdict(settings)), "raw") as encoder:
        encoder.ask("encode", texts=["hello"])  # answers when its model is loaded
        yield encoder


def _note(rates: Rates, texts: list[str], spent: float, encoders: tuple[Child, Child | None]) -> None:
    """Note what a part's ``texts`` have taken, and have them encoded; then forget them."""
    few = texts[:: -(-len(texts) // ENCODED)]
    plainly, raw = encoders
    rates.texts += len(texts)
    rates.pipeline.append(len(texts) / spent)
    rates.plain.append(len(few) / plainly.ask("encode", texts=few))
    if raw is not None:
        rates.raw.append(rates.plain[-1] if raw is plainly else len(few) / raw.ask("encode", texts=few))
    texts.clear()


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


def _disk(size: tuple[int, int], pages: int, *, real: bool, static: bool) -> Figure:
    blocks, lengths = size
    aims = () if static else (at_most(1100),)  # its table is as large as thousands of pages
    note = (
        f"{pages} pages {'of the data set' if real else 'that are synthetic'}; "
        f"blocks {blocks}, lengths {lengths} bytes; the larger counts{'; the static table is in it' * static}"
    )
    return Figure("disk for a page, all told", "bytes", pages, max(size) / pages, aims=aims, note=note)
