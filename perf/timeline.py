"""How far a pipeline's pages have come by when: throughput and backlog over time, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from mos_pipeline import MemoryPipeline
from perf.result import Series
from perf.watching import Sampler

__all__ = ["Moment", "Timeline", "curves"]

EVERY_S = 0.1
POINTS = 60  # of a curve, at most
RATES = 20  # fewer: stages work in bursts
STAGES = ("accepted", "embedded", "in sessions", "written")
WAITING = ("without a vector", "of full batches, in no session", "not written to a segment")


class Moment(NamedTuple):
    """Pages of a pipeline that had passed each stage, and those that waited, so many seconds after the begin.

    Attributes:
        passed: accepted, embedded, in mid-term sessions, in a flushed segment.
        waiting: without a vector, of full batches that are in no session yet, in the journal alone.
    """

    seconds: float
    passed: tuple[int, int, int, int]
    waiting: tuple[int, int, int]


class Timeline:
    """Looks at a pipeline while it is at work; time that passes outside ``watched`` does not count."""

    def __init__(self, pipeline: MemoryPipeline) -> None:
        self._pipeline = pipeline
        self._before = 0.0
        self._begun = 0.0
        self.moments: list[Moment] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look again and again within the block, at its begin and at its end."""
        self._begun = time.monotonic()
        first = self._look()
        with Sampler(self._look, EVERY_S) as sampler:
            yield
        self.moments += [first, *sampler.seen, self._look()]
        self._before += time.monotonic() - self._begun

    def series(self) -> list[Series]:
        """Return the curves."""
        return curves(self.moments)

    def _look(self) -> Moment:
        stats = self._pipeline.stats()
        passed = stats.accepted_pages, stats.embedded_pages, stats.placed_pages, stats.written_pages
        waiting = stats.backlog_pages, stats.waiting_pages, stats.accepted_pages - stats.written_pages
        return Moment(self._before + time.monotonic() - self._begun, passed, waiting)


def curves(moments: Sequence[Moment]) -> list[Series]:
    """Return pages, pages a second and backlog over time, by stage; at some moments that are evenly spread."""
    many, few = _spread(moments, POINTS), _spread(moments, RATES)
    return [
        *_drawn("pages by stage", "pages", STAGES, many, lambda _, now, at: float(now.passed[at])),
        *_drawn("throughput by stage", "pages/s", STAGES, few, _rate),
        *_drawn("backlog by stage", "pages", WAITING, many, lambda _, now, at: float(now.waiting[at])),
    ]


def _spread(moments: Sequence[Moment], count: int) -> list[Moment]:
    """Return the first and the last moment, and at most ``count`` - 1 between them."""
    places = dict.fromkeys(number * (len(moments) - 1) // count for number in range(count + 1))
    return [moments[place] for place in places]


def _drawn(
    plot: str,
    unit: str,
    names: Sequence[str],
    moments: Sequence[Moment],
    of: Callable[[Moment, Moment, int], float],
) -> list[Series]:
    return [
        Series(plot, name, "seconds at work", unit, [(now.seconds, of(was, now, at)) for was, now in pairwise(moments)])
        for at, name in enumerate(names)
    ]


def _rate(before: Moment, now: Moment, at: int) -> float:
    spent = now.seconds - before.seconds
    return (now.passed[at] - before.passed[at]) / spent if spent > 0 else 0.0
