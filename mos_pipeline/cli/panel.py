"""A snapshot of a running pipeline as lines of text, the most important ones first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mos_pipeline.cli.output import as_bytes, clean, counted

if TYPE_CHECKING:
    from mos_pipeline.metrics import Stats, WorkerStats

__all__ = ["panel"]

LABEL = 10  # cells
ABSENT = "-"


def panel(stats: Stats, rates: Mapping[str, float] | None, heading: str) -> list[str]:
    """Return what is shown of a snapshot, line by line; a line may be longer than the terminal is wide.

    Args:
        stats: the snapshot.
        rates: what ``Rates`` made of it.
        heading: the first line.
    """
    return [clean(heading), "", *_stages(stats, rates or {}), "", *_whole(stats, rates or {}), *_tasks(stats)]


def _stages(stats: Stats, rates: Mapping[str, float]) -> Iterator[str]:
    yield _stage("stage", "pages/s", "waiting", "state", "memory", "restarts")
    backlog = f"{counted(stats.backlog_pages, 'page')}, {as_bytes(stats.backlog_bytes)}"
    yield _stage("accepted", _rate(rates, "accepted"), backlog, "", as_bytes(stats.memory), "")
    waiting = {
        "embedder": ("embedded", counted(stats.in_flight_texts, "text")),
        "llm": ("placed", counted(stats.waiting_pages, "page")),
        "writer": ("written", counted(stats.unwritten, "piece")),
    }
    for role, (rate, count) in waiting.items():
        worker = stats.workers.get(role)
        units = f", {counted(worker.waiting, 'unit')}" if worker is not None else ""
        yield _stage(role, _rate(rates, rate), count + units, *_worker(worker))
        if worker is not None and worker.error:
            yield _named("", f"down: {clean(worker.error)}")


def _stage(name: str, rate: str, waiting: str, state: str, memory: str, restarts: str) -> str:
    return f"{name:<10}{rate:>10}  {waiting:<24}{state:<10}{memory:>10}{restarts:>10}".rstrip()


def _worker(worker: WorkerStats | None) -> tuple[str, str, str]:
    """Return state, memory of all its processes, and restarts."""
    if worker is None:
        return ABSENT, ABSENT, ABSENT
    count = len(worker.pids)
    state = worker.state if count == 1 else f"{worker.state} {count}"
    return state, as_bytes(sum(worker.memory)), f"{worker.restarts:,}"


def _whole(stats: Stats, rates: Mapping[str, float]) -> Iterator[str]:
    told = [(stats.pages, "page"), (stats.users, "user"), (stats.sessions, "session"), (stats.facts, "fact")]
    forgotten = f"; {stats.forgotten:,} forgotten" if stats.forgotten else ""
    yield _named("holds", ", ".join(counted(count, noun) for count, noun in told) + forgotten)
    yield _named("vectors", f"{stats.vectors:,}, {as_bytes(stats.vector_bytes)} of shared memory")
    texts = f"{stats.embedded_texts:,} computed ({_rate(rates, 'computed')}/s)"
    reused = f"{stats.reused_texts:,} reused ({_rate(rates, 'reused')}/s), {stats.known_texts:,} known"
    yield _named("texts", f"{texts}, {reused}")
    yield _named("model", _model(stats))
    if not stats.restored:
        yield _named("note", "the store is still being read")
    if stats.unlifted:
        yield _named("to lift", f"{counted(stats.unlifted, 'vector')} by another model")
    if stats.set_aside:
        yield _named("set aside", counted(len(stats.set_aside), "page"))
    if stats.damage:
        yield _named("damage", counted(len(stats.damage), "place"))


def _model(stats: Stats) -> str:
    model = stats.model
    if not model:
        return "none yet"
    computed = {**model, **stats.embedder}  # the store's model may have been computed by another backend before
    kind = " ".join(str(computed[key]) for key in ("backend", "precision", "tier") if computed.get(key))
    told = [clean(str(model["model"])), f"{model['dimension']} dimensions", clean(kind)]
    if "threads" in stats.embedder:
        told.append(counted(stats.embedder["threads"], "thread"))
    if "ms_per_batch" in stats.embedder:
        pieces = (
            f" of {stats.embedder['batch_word_pieces']:,} word pieces" if "batch_word_pieces" in stats.embedder else ""
        )
        told.append(f"{stats.embedder['ms_per_batch']:,} ms a full batch{pieces}")
    return ", ".join(filter(None, told))


def _tasks(stats: Stats) -> Iterator[str]:
    """Yield what a language model does and owes; nothing where none is asked and none owes anything."""
    if stats.endpoint:
        yield _named("endpoint", stats.endpoint)
    names = list(dict.fromkeys((*stats.tasks, *stats.owed)))
    if names:
        yield ""
        yield _task("task", ("calls", "retries", "repairs", "fallbacks", "owed", "median ms", "p99 ms"))
    for name in names:
        task, owed = stats.tasks.get(name), stats.owed.get(name, 0)
        figures = [ABSENT] * 4 + [f"{owed:,}"] + [ABSENT] * 2
        if task is not None:
            told = task.calls, task.retries, task.repairs, task.fallbacks, owed, task.median_ms, task.p99_ms
            figures = [f"{figure:,}" for figure in told]
        yield _task(name, figures)


def _task(name: str, figures: tuple[str, ...] | list[str]) -> str:
    return f"{name:<{LABEL}}" + "".join(f"{figure:>10}" for figure in figures)


def _named(name: str, text: str) -> str:
    return f"{name:<{LABEL}}{text}"


def _rate(rates: Mapping[str, float], name: str) -> str:
    return f"{rates[name]:,.1f}" if name in rates else ABSENT
