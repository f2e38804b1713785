"""Reopening after SIGKILL, and what a page takes in memory.

A process of its own fills a store: nine tenths of the pages are one user's, the others those of 100 more users. Its
memory is taken, all its children's included, at a fifth of the pages and at all of them. With some more pages on their
way it is killed; a fresh process opens the store, adds a page, searches, and is killed in turn, some times over. The
time runs from before the fresh process starts. That no page is missing is checked on the way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perf.children import Child
from perf.options import Options
from perf.result import BenchResult, Figure, at_most

__all__ = ["run"]

FEWER = 5
UNFINISHED = 500
KB = 1024.0


def run(options: Options) -> BenchResult:
    """Measure memory and recovery."""
    pages = options.size(100_000, 5000)
    with options.store() as folder:
        with _owner(options, folder) as owner:
            configuration = owner.ask("configuration")
            memory = _memory(owner, pages)
            kept = owner.ask("grow", pages=pages + UNFINISHED)
            owner.kill()
        figures = _recovery(options, folder, kept)
    return BenchResult("recover", configuration, [*figures, memory])


def _memory(owner: Child, pages: int) -> Figure:
    fewer = pages // FEWER
    sizes = []
    for count in (fewer, pages):
        owner.ask("grow", pages=count)
        sizes.append(owner.ask("idle"))
    small, large = sizes
    note = f"(PSS {large} bytes at {pages} pages − {small} at {fewer}) / {pages - fewer}, of main and its children"
    return Figure(
        "memory for a page", "KB", pages - fewer, (large - small) / (pages - fewer) / KB, aims=(at_most(4),), note=note
    )


def _owner(options: Options, folder: Path) -> Child:
    return Child("owner", str(folder), json.dumps(options.settings))


def _recovery(options: Options, folder: Path, kept: int) -> list[Figure]:
    rounds = options.times(5, 2)
    adds, searches, degraded = list[float](), list[float](), 0
    for number in range(1, rounds + 1):
        with _owner(options, folder) as owner:
            first = owner.ask("first")
            _check(first, kept + number)
            adds.append(first["add"] - owner.started)
            searches.append(first["retrieve"] - owner.started)
            degraded += first["degraded"]
            if number < rounds:
                owner.kill()
    note = f"{kept} pages, from before the process starts; {degraded} of {rounds} searches by words alone"
    return [
        Figure.of("SIGKILL to the first add", "s", adds, at_most(1), note=note),
        Figure.of("SIGKILL to the first retrieve", "s", searches, at_most(5)),
    ]


def _check(first: dict[str, Any], expected: int) -> None:
    if first["pages"] != expected:
        raise RuntimeError(f"after SIGKILL the store has {first['pages']} pages, {expected} were accepted")
