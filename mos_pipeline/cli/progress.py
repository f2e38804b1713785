"""How far a command is: one line redrawn in place on a terminal, now and then a line of its own elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TextIO

from mos_pipeline.cli.output import CLEAR_LINE, as_duration, cut, to_stderr, width

__all__ = ["Moment", "Progress", "Rate", "Shown"]

REDRAW_S = 0.2
LINE_S = 5.0
BAR = 24
WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What is shown of an ingestion.

    Attributes:
        phase: what is going on, one word: "reading", "loading" (the model), "processing", "writing".
        pages: pages accepted in this run.
        passed: records passed over, since they are in the store already.
        rate: pages a second, lately; None where that can't be told yet.
        backlog: pages that wait for the model; None while the store is still being read.
        share: how much of the known work is done, 0 to 1.
        seconds_left: None where the end is not known.
    """

    phase: str
    pages: int
    passed: int
    rate: float | None
    backlog: int | None
    share: float
    seconds_left: float | None

    def text(self) -> str:
        """Return the moment in words."""
        parts = [f"{self.pages:,} pages"]
        if self.passed:
            parts.append(f"{self.passed:,} already there")
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f} pages/s")
        parts.append("opening the store" if self.backlog is None else f"backlog {self.backlog:,}")
        if self.seconds_left is not None:
            parts.append(f"{as_duration(self.seconds_left)} left")
        return ", ".join(parts)


class Shown(Protocol):
    """What a progress shows."""

    @property
    def phase(self) -> str:
        """What is going on, one word."""

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""

    def text(self) -> str:
        """Return the rest in words."""
        ...


class Progress:
    """Shows moments on a stream, at most every 0.2 s on a terminal and every 5 s elsewhere."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._every = REDRAW_S if self._terminal else LINE_S
        # A short run on no terminal says nothing; on one, the bar is there from the beginning.
        self._next = clock() + (0.0 if self._terminal else self._every)

    def tick(self, moment: Callable[[], Shown]) -> None:
        """Show what ``moment()`` returns, if it is time."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._every
        shown = moment()
        if self._terminal:
            to_stderr(self._stream, CLEAR_LINE + cut(_with_bar(shown), width() - 1))
        else:
            to_stderr(self._stream, f"{shown.phase}: {shown.text()}\n")

    def end(self) -> None:
        """Take the bar away."""
        if self._terminal:
            to_stderr(self._stream, CLEAR_LINE)


def _with_bar(moment: Shown) -> str:
    filled = int(BAR * min(1.0, max(0.0, moment.share)))
    return f"{moment.phase:<10} [{'#' * filled}{'-' * (BAR - filled)}] {moment.text()}"


class Rate:
    """How fast a count grew over the last 10 seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def __call__(self, count: int) -> float | None:
        """Note the count; return its growth a second, or None with the first sample."""
        now = self._clock()
        self._samples.append((now, count))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        return (count - before) / (now - since) if now > since else None
