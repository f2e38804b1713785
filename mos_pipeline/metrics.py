"""One snapshot of a pipeline for everyone who asks: ``stats()``, the command line, Prometheus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["UP", "Stats", "TaskStats", "WorkerStats", "prometheus"]

PREFIX = "mos_pipeline_"
UP = "up"  # of the language model's endpoint
WORKER_STATES = ("starting", "ready", "failed")


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One pool of worker processes.

    Attributes:
        state: "starting", "ready" or "failed".
        waiting: pieces of work given to the pool and not answered yet.
        restarts: workers started again after a death.
        error: why it stays down, where it does.
        memory: bytes that each of ``pids`` has for itself, in their order: what is resident, without shared memory;
            0 where that can't be told.
    """

    state: str
    pids: tuple[int, ...]
    waiting: int
    restarts: int
    error: str | None
    memory: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskStats:
    """The calls to a language model for one kind of task, since the pipeline was opened.

    Attributes:
        calls: requests sent, those included that failed.
        tokens_in: tokens of prompts that were answered, as the endpoint tells, or estimated where it doesn't.
        tokens_out: likewise, of answers.
        retries: calls made again since the one before failed.
        repairs: answers that had to be mended, or asked for once more.
        fallbacks: tasks that the extractive answer stands in for.
        median_ms: median time of the calls that were answered, milliseconds, to within 5 %.
        p99_ms: 99th percentile of it.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    retries: int
    repairs: int
    fallbacks: int
    median_ms: int
    p99_ms: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A pipeline at one moment.

    Users, sessions, facts and what is owed are counted one user after another while work goes on; while it rests, all
    figures are those of the same moment.

    Attributes:
        pages: pages that were accepted and not forgotten.
        users: distinct users who have pages.
        sessions: mid-term sessions.
        facts: facts of long-term memory, about users and assistants.
        forgotten: pages forgotten whose bytes are still on the disk, until the next compaction.
        backlog_pages: pages without a vector, those in rings that are not full included.
        backlog_bytes: their size.
        in_flight_texts: texts at the embedder, and those that wait there for an equal one.
        unwritten: pieces of work that the writer has not acknowledged.
        restored: whether everything that was stored is in memory.
        vectors: rows in the vector pool.
        vector_bytes: shared memory given to the pool, bytes.
        set_aside: page id and reason of each page that no worker could work on.
        model: identity of the store's embedding model; empty before the first vector.
        damage: file, offset and reason of what could not be read at opening.
        workers: by role: "embedder", "llm", "writer"; empty where opened without workers.
        tasks: by kind of task: "continuity", "topics", "profile", "knowledge", "answer" (to ``respond``), and
            "continues" and "overview" with ``llm.plan: per_page``; empty where no language model is asked.
        endpoint: of the language model: "up", or "down since" when, as far as its last calls tell; empty where none is
            asked.
        owed: of how many pages each task is owed, since an extractive answer stands in for a model's; see
            ``MemoryPipeline.repay``.
        waiting_pages: pages of full batches that are in no session yet: they are being embedded, or wait for more of a
            bulk load (``llm.bulk_tokens``), or for their tasks.
        unlifted: vectors by another model that are still to be made again by the store's: of pages, which count as
            ``backlog_pages`` too, of summaries and of facts.
        accepted_pages: pages accepted since the pipeline was opened; this and what follows only ever grows.
        embedded_pages: pages that got their vector since then, those included that were there before.
        placed_pages: likewise, pages that came into a session.
        written_pages: likewise, pages that the writer has put into segments; tombstones count as pages.
        embedded_texts: texts that the embedder has computed since then: of pages, summaries and facts.
        reused_texts: texts that it had not to compute, since an equal one has a vector; see ``embedding.known_texts``.
        known_texts: texts whose vectors are found again by an equal text at this moment.
        memory: bytes that the process of the pipeline has for itself: what is resident, without shared memory; 0 where
            that can't be told. For the others see ``workers``, for the vectors ``vector_bytes``.
        embedder: how the embedder computes: "backend", "precision", "threads", "batch_word_pieces" of a full batch of
            pages, and the "ms_per_batch" that one took when the model warmed up. Empty until it is ready.
    """

    path: str
    pages: int
    users: int
    sessions: int
    facts: int
    forgotten: int
    backlog_pages: int
    backlog_bytes: int
    in_flight_texts: int
    unwritten: int
    restored: bool
    vectors: int
    vector_bytes: int
    set_aside: dict[str, str]
    model: dict[str, Any]
    damage: list[str]
    workers: dict[str, WorkerStats]
    tasks: dict[str, TaskStats] = field(default_factory=dict)
    endpoint: str = ""
    owed: dict[str, int] = field(default_factory=dict)
    waiting_pages: int = 0
    unlifted: int = 0
    accepted_pages: int = 0
    embedded_pages: int = 0
    placed_pages: int = 0
    written_pages: int = 0
    embedded_texts: int = 0
    reused_texts: int = 0
    known_texts: int = 0
    memory: int = 0
    embedder: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain nested dicts and lists, for JSON."""
        return dataclasses.asdict(self)


# Name, type and help of each figure in Prometheus' text format; ``_total`` is for what only ever grows.
_FIGURES = (
    ("pages", "gauge", "Pages accepted and not forgotten.", "pages"),
    ("users", "gauge", "Distinct users who have pages.", "users"),
    ("sessions", "gauge", "Sessions of mid-term memory.", "sessions"),
    ("facts", "gauge", "Facts of long-term memory.", "facts"),
    ("forgotten_pages", "gauge", "Pages forgotten whose bytes are still on the disk.", "forgotten"),
    ("backlog_pages", "gauge", "Pages without a vector.", "backlog_pages"),
    ("backlog_bytes", "gauge", "Bytes of pages without a vector.", "backlog_bytes"),
    ("waiting_pages", "gauge", "Pages of full batches that are in no session yet.", "waiting_pages"),
    ("in_flight_texts", "gauge", "Texts at the embedder.", "in_flight_texts"),
    ("unwritten_pieces", "gauge", "Pieces of work that the writer has not acknowledged.", "unwritten"),
    ("restored", "gauge", "1 once everything stored is in memory.", "restored"),
    ("vectors", "gauge", "Rows in the vector pool.", "vectors"),
    ("unlifted_vectors", "gauge", "Vectors by another model that are still to be made again.", "unlifted"),
    ("vector_bytes", "gauge", "Bytes of shared memory given to the vector pool.", "vector_bytes"),
    ("accepted_pages_total", "counter", "Pages accepted since the opening.", "accepted_pages"),
    ("embedded_pages_total", "counter", "Pages that got their vector since the opening.", "embedded_pages"),
    ("placed_pages_total", "counter", "Pages that came into a session since the opening.", "placed_pages"),
    ("written_pages_total", "counter", "Pages put into segments since the opening.", "written_pages"),
    ("embedded_texts_total", "counter", "Texts that the embedder has computed since the opening.", "embedded_texts"),
    ("reused_texts_total", "counter", "Texts not computed, since an equal one has a vector.", "reused_texts"),
    ("known_texts", "gauge", "Texts whose vectors an equal text finds again.", "known_texts"),
)
_WORKER_FIGURES = (
    ("worker_processes", "gauge", "Worker processes that live.", lambda worker: len(worker.pids)),
    ("worker_waiting_pieces", "gauge", "Pieces of work not answered yet.", lambda worker: worker.waiting),
    ("worker_restarts_total", "counter", "Workers started again after a death.", lambda worker: worker.restarts),
)
_TASK_FIGURES = (
    ("llm_calls_total", "Calls to the language model.", "calls"),
    ("llm_prompt_tokens_total", "Tokens of prompts that were answered.", "tokens_in"),
    ("llm_answer_tokens_total", "Tokens of answers.", "tokens_out"),
    ("llm_retries_total", "Calls made again since the one before failed.", "retries"),
    ("llm_repairs_total", "Answers that were mended, or asked for once more.", "repairs"),
    ("llm_fallbacks_total", "Tasks that the extractive answer stands in for.", "fallbacks"),
)
_QUANTILES = (("0.5", "median_ms"), ("0.99", "p99_ms"))


def prometheus(stats: Stats) -> str:
    """Return a snapshot in Prometheus' text exposition format, each figure labelled with its store."""
    return "".join(f"{line}\n" for line in _lines(stats))


def _lines(stats: Stats) -> Iterator[str]:
    store = {"store": stats.path}
    for name, kind, meaning, attribute in _FIGURES:
        yield from _figure(name, kind, meaning, [(store, getattr(stats, attribute))])
    yield from _figure("set_aside_pages", "gauge", "Pages no worker could work on.", [(store, len(stats.set_aside))])
    endpoint = [(store, stats.endpoint == UP)] if stats.endpoint else []
    yield from _figure("llm_endpoint_up", "gauge", "0 while the language model's endpoint is down.", endpoint)
    owed = [(store | {"task": task}, pages) for task, pages in stats.owed.items()]
    yield from _figure("owed_pages", "gauge", "Pages that a task is owed of by the language model.", owed)
    yield from _figure("damaged_places", "gauge", "Places that could not be read.", [(store, len(stats.damage))])
    model = {name: str(value) for name, value in sorted(stats.model.items()) if isinstance(value, str | int)}
    yield from _figure("model_info", "gauge", "The embedding model.", [(store | model, 1)] if model else [])
    computing = {name: str(value) for name, value in stats.embedder.items()}
    yield from _figure(
        "embedder_info", "gauge", "How vectors are computed.", [(store | computing, 1)] * bool(computing)
    )
    workers = [(store | {"role": role}, worker) for role, worker in stats.workers.items()]
    for name, kind, meaning, value_of in _WORKER_FIGURES:
        yield from _figure(name, kind, meaning, [(labels, value_of(worker)) for labels, worker in workers])
    states = [
        (labels | {"state": state}, state == worker.state) for labels, worker in workers for state in WORKER_STATES
    ]
    yield from _figure("worker_state", "gauge", "1 for the state that the workers are in.", states)
    memory = [(store | {"role": "main"}, stats.memory)]
    memory += [(labels, sum(worker.memory)) for labels, worker in workers]
    yield from _figure("memory_bytes", "gauge", "Memory of the processes' own, without shared memory.", memory)
    tasks = [(store | {"task": name}, task) for name, task in stats.tasks.items()]
    for name, meaning, attribute in _TASK_FIGURES:
        yield from _figure(name, "counter", meaning, [(labels, getattr(task, attribute)) for labels, task in tasks])
    latencies = [
        (labels | {"quantile": quantile}, getattr(task, attribute))
        for labels, task in tasks
        for quantile, attribute in _QUANTILES
    ]
    yield from _figure("llm_latency_milliseconds", "gauge", "Time of calls that were answered.", latencies)


def _figure(name: str, kind: str, meaning: str, samples: Iterable[tuple[dict[str, str], int]]) -> Iterator[str]:
    """Yield one figure's lines; none where it has no samples."""
    for index, (labels, value) in enumerate(samples):
        if not index:
            yield f"# HELP {PREFIX}{name} {meaning}"
            yield f"# TYPE {PREFIX}{name} {kind}"
        told = ",".join(f"{label}={_quoted(text)}" for label, text in labels.items())
        yield f"{PREFIX}{name}{{{told}}} {int(value)}"


def _quoted(text: str) -> str:
    """Return a label's value as the format wants it: backslash, quote and line feed escaped, all else as it is."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
