"""Where each microsecond of an ingested page goes: by thread and process, and within them by kind of work.

The same pages are ingested twice, each time from the first ``add`` until everything is embedded, applied and written.
The first time nothing is sampled: the kernel's own accounts tell how long each thread ran, how long it waited for a
core, how often it gave one up or lost it, and how many bytes came and went. The second time each thread is sampled by
its own processor clock (``perf/sampling.py``); only the shares of what was met are taken from there. With ``--backend
fake`` it is the engine alone: the fake model's own part stands in the embedder's table as ``model``.

What is told of a thread of the caller's process is processor time. Time in which it waits for the interpreter lock, for
a message or for a core is none; the note of the first figure compares all of them with the time by the clock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from perf import usage
from perf.kinds import busiest, by_kind
from perf.options import Options
from perf.pipelines import pids_of, wait_ready
from perf.result import BenchResult, Figure, at_most
from perf.sampling import Stacks, ThreadSampler, children_sampled, stacks_of
from perf.texts import Page
from perf.usage import Usage

__all__ = ["run"]

USERS = 20
WARM_UP, QUICK_WARM_UP = 200, 60  # pages before: caches and code are there then
IDLE_TIMEOUT_S = 3600.0
MICRO = 1e6
FUNCTIONS = 6  # named in a stage's note
LEAST_SHARE = 0.02  # kinds with less are told together
# Threads of this process, by their names; the first is the caller's own.
THREADS = {"caller": "MainThread", "coordinator": "mos-coordinator", "supervisor": "mos-supervisor"}
FEEDERS = "QueueFeeder"
ROLES = ("embedder", "llm", "writer")
PASSED = {
    "embedder": "by its queue; it writes vectors into shared memory",
    "llm": "by its queue, the pages' vectors included",
    "writer": "by its queue, from the journal and into segments",
}
AIM_US = 500  # of processor time for a page, over all processes, the fake model's included: 4,000 pages/s on two cores


@dataclass(slots=True)
class _Accounts:
    """What was used by each stage.

    Attributes:
        wall: seconds by the clock.
        stages: by a thread's or a role's name.
        python: of it, by the main thread of each process of a role.
        passed: bytes that a role's processes read and wrote.
    """

    wall: float = 0.0
    stages: dict[str, Usage] = field(default_factory=dict)
    python: dict[str, Usage] = field(default_factory=dict)
    passed: dict[str, tuple[int, int]] = field(default_factory=dict)


def run(options: Options) -> BenchResult:
    """Measure and sample the ingestion of some pages."""
    stream = options.page_stream()
    warm_up = [{**page, "user_id": "nobody"} for page in islice(stream, options.times(WARM_UP, QUICK_WARM_UP))]
    pages = list(islice(stream, options.size(8000, 120)))
    if options.dataset is None:
        pages = [{**page, "user_id": f"user {number * USERS // len(pages)}"} for number, page in enumerate(pages)]
    settings = options.with_own({"embedding__backend": options.backend})
    with options.store() as folder:
        accounts, configuration = _measured(folder, settings, warm_up, pages)
    with options.store() as folder:
        stacks = _sampled(folder, settings, warm_up, pages)
    return BenchResult("profile", configuration, _figures(accounts, stacks, len(pages), fake=options.backend == "fake"))


@contextmanager
def _warm(folder: Path, settings: Mapping[str, Any], warm_up: Sequence[Page]) -> Iterator[MemoryPipeline]:
    with MemoryPipeline.open(folder, **settings) as pipeline:
        wait_ready(pipeline)
        pipeline.add_many(warm_up)
        pipeline.wait_idle(IDLE_TIMEOUT_S)
        yield pipeline


def _ingest(pipeline: MemoryPipeline, pages: Sequence[Page]) -> None:
    pipeline.add_many(pages)
    pipeline.wait_idle(IDLE_TIMEOUT_S)


def _measured(
    folder: Path, settings: Mapping[str, Any], warm_up: Sequence[Page], pages: Sequence[Page]
) -> tuple[_Accounts, dict[str, Any]]:
    with _warm(folder, settings, warm_up) as pipeline:
        before = _look(pipeline)
        _ingest(pipeline, pages)
        after = _look(pipeline)
        configuration = pipeline._engine.config.as_dict()
    spent = _Accounts(after.wall - before.wall)
    spent.stages = {name: used.since(before.stages[name]) for name, used in after.stages.items()}
    spent.python = {name: used.since(before.python[name]) for name, used in after.python.items()}
    for role, (read, written) in after.passed.items():
        spent.passed[role] = read - before.passed[role][0], written - before.passed[role][1]
    return spent, configuration


def _look(pipeline: MemoryPipeline) -> _Accounts:
    found = _Accounts(time.perf_counter())
    own = os.getpid()
    for stage, name in {**THREADS, "feeders": FEEDERS}.items():
        found.stages[stage] = usage.of_threads(own, usage.threads_named(name))
    for role in ROLES:
        pids = pids_of(pipeline, role)
        found.stages[role] = _sum(usage.of_process(pid) for pid in pids)
        found.python[role] = _sum(usage.of_threads(pid, [pid]) for pid in pids)
        read, written = zip(*(usage.passed_bytes(pid) for pid in pids), strict=True)
        found.passed[role] = sum(read), sum(written)
    return found


def _sum(parts: Iterator[Usage]) -> Usage:
    total = Usage()
    for part in parts:
        total = total.plus(part)
    return total


def _sampled(
    folder: Path, settings: Mapping[str, Any], warm_up: Sequence[Page], pages: Sequence[Page]
) -> dict[str, Stacks]:
    """Return the stacks of each thread and of each role."""
    notes = folder.parent / "stacks"
    notes.mkdir()
    with children_sampled(notes), _warm(folder, settings, warm_up) as pipeline:
        files = {role: [notes / str(pid) for pid in pids_of(pipeline, role)] for role in ROLES}
        before = {file: file.stat().st_size for each in files.values() for file in each}
        with ExitStack() as samplers:
            for number, (stage, name) in enumerate(THREADS.items()):
                (thread,) = (each for each in threading.enumerate() if each.name == name)
                samplers.callback(ThreadSampler(thread, notes / stage, number).stop)
            _ingest(pipeline, pages)
        found = {stage: stacks_of(notes / stage) for stage in THREADS}
        for role, mine in files.items():
            found[role] = Stacks()
            for file in mine:
                found[role].update(stacks_of(file, before[file]))
    return found


def _figures(accounts: _Accounts, stacks: Mapping[str, Stacks], pages: int, *, fake: bool) -> list[Figure]:
    main = sum(accounts.stages[stage].ran for stage in (*THREADS, "feeders"))
    total = main + sum(accounts.stages[role].ran for role in ROLES)
    aims = (at_most(AIM_US),) if fake else ()
    figures = [
        Figure("time by the clock for a page", "µs", pages, _each(accounts.wall, pages), note=_bound(accounts, pages)),
        Figure("processor time for a page", "µs", pages, _each(total, pages), aims=aims),
        Figure("the caller's process", "µs", pages, _each(main, pages), note="its threads share an interpreter lock"),
    ]
    for stage, used in accounts.stages.items():
        figures.append(Figure(stage, "µs", pages, _each(used.ran, pages), note=_told(used, pages, stacks.get(stage))))
        if stage in stacks:
            ran = accounts.python[stage].ran if stage in ROLES else used.ran
            figures += _kinds(stage, _each(ran, pages), _each(used.ran - ran, pages), stacks[stage])
    switches = [(used.gave_up, used.lost) for used in accounts.stages.values()]
    gave_up, lost = map(sum, zip(*switches, strict=True))
    figures.append(Figure("cores given up for a page", "", pages, gave_up / pages, note="voluntary context switches"))
    figures.append(Figure("cores lost for a page", "", pages, lost / pages, note="involuntary ones"))
    for role, (read, written) in accounts.passed.items():
        figures.append(Figure(f"bytes to the {role} for a page", "bytes", pages, read / pages, note=PASSED[role]))
        figures.append(Figure(f"bytes from the {role} for a page", "bytes", pages, written / pages))
    return figures


def _each(spent: float, pages: int) -> float:
    return MICRO * spent / pages


def _kinds(stage: str, python: float, rest: float, stacks: Stacks) -> list[Figure]:
    """Return the microseconds of a stage by kind of work; they add up to all of the stage's."""
    shares = by_kind(stacks)
    figures = [
        Figure(f"{stage}: {kind}", "µs", stacks.total(), python * share)
        for kind, share in shares.items()
        if share >= LEAST_SHARE
    ]
    small = sum(share for share in shares.values() if share < LEAST_SHARE)
    unknown = 0.0 if shares else 1.0
    figures.append(Figure(f"{stage}: the rest", "µs", stacks.total(), python * (small + unknown) + rest))
    return figures


def _told(used: Usage, pages: int, stacks: Stacks | None) -> str:
    text = (
        f"waited {_each(used.waited, pages):.0f} µs for a core; gave it up {used.gave_up / pages:.2g} times, "
        f"lost it {used.lost / pages:.2g} times a page"
    )
    return f"{text}; most in {', '.join(busiest(stacks, FUNCTIONS))}" if stacks else text


def _bound(accounts: _Accounts, pages: int) -> str:
    """Tell what the time by the clock is bounded by: the larger of two lower bounds, and how near it is."""
    cores = len(os.sched_getaffinity(0))
    main = sum(accounts.stages[stage].ran for stage in (*THREADS, "feeders"))
    spread = (main + sum(accounts.stages[role].ran for role in ROLES)) / cores
    coordinator = accounts.stages["coordinator"]
    name, least = ("the caller's process", main) if main > spread else (f"all processes over {cores} cores", spread)
    return (
        f"{pages / accounts.wall:.0f} pages/s; the caller's process ran {main / accounts.wall:.0%} of that time, all "
        f"processes {spread / accounts.wall:.0%} of {cores} cores; bounded by {name}, {_each(least, pages):.0f} µs; "
        f"the coordinator waited {_each(coordinator.waited, pages):.0f} µs for a core"
    )
