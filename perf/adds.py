"""What each add takes in a row of them, by fresh users: does it fall off a cliff once short-term memory is full?

The next user begins when everything of the one before is done, so each row meets an idle pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mos_pipeline import MemoryPipeline
from mos_pipeline.stages.models import MINILM, find_model
from perf.options import Options
from perf.peers import Peer
from perf.pipelines import at_rest, wait_ready
from perf.result import Aim, Figure, Series
from perf.texts import Page, synthetic_pages
from perf.timing import median

__all__ = [
    "ADDS",
    "CAPACITY",
    "Row",
    "add_rows",
    "cliff",
    "come_to_rest",
    "in_order",
    "openai_settings",
    "our_adds",
    "row_of",
    "their_adds",
    "their_rows",
]

CAPACITY = 9
ADDS, PAUSE_S = 20, 0.02
SEEDS = 1000  # of rows: others than those of what else is added to the same store, since equal texts are embedded once
LOOK_S = 0.01
REST_S = 1800.0
US = 1e6


def openai_settings(base_url: str, **more: Any) -> dict[str, Any]:
    """Return the settings of a pipeline that asks an endpoint."""
    return {
        "llm__provider": "openai",
        "llm__base_url": base_url,
        "llm__api_key": "none",
        "short_term__capacity": CAPACITY,
        **more,
    }


def cliff(
    name: str, seconds: Sequence[Sequence[float]], early: slice, late: slice, *aims: Aim, note: str = ""
) -> list[Figure]:
    """Return early adds, late adds, and their ratio; ``seconds`` are what each add of each user took."""
    length = len(seconds[0])
    first, last = ([US * spent for user in seconds for spent in user[which]] for which in (early, late))
    return [
        Figure.of(f"{name}: {_told(early, length)}", "µs", first),
        Figure.of(f"{name}: {_told(late, length)}", "µs", last),
        Figure.ratio(f"{name}: {_told(late, length)} over {_told(early, length)}", last, first, *aims, note=note),
    ]


def in_order(name: str, seconds: Sequence[Sequence[float]]) -> Series:
    """Return the curve of each add in its order: the median of all users."""
    medians = [(number, US * median(spent)) for number, spent in enumerate(zip(*seconds, strict=True), 1)]
    return Series("the cliff", name, "add, in order", "µs", [(float(number), spent) for number, spent in medians])


def _told(which: slice, length: int) -> str:
    first, stop, _ = which.indices(length)
    return f"{first + 1}–{stop}"


def our_adds(
    options: Options, settings: Mapping[str, Any], users: int, pause_s: float | None = None, adds: int = ADDS
) -> list[list[float]]:
    """Return what each of so many adds of each user takes in a pipeline with these settings, in seconds.

    Before each is a pause of ``pause_s`` seconds; ``PAUSE_S`` where None.
    """
    with options.store() as store, options.open(store, **settings) as memory:
        wait_ready(memory)
        return add_rows(memory, users, PAUSE_S if pause_s is None else pause_s, adds)


def add_rows(memory: MemoryPipeline, users: int, pause_s: float, adds: int) -> list[list[float]]:
    """Return what each of so many adds of each user takes, in seconds, after a pause each."""
    found = []
    for number in range(users):
        pages = row_of(number, adds, f"user{number}")
        found.append([_timed(memory, page, pause_s) for page in pages])
        come_to_rest(memory)
    return found


def row_of(number: int, adds: int, user: str = "user") -> list[Page]:
    """Return the pages of a row, of another text for each number."""
    return list(islice(synthetic_pages(user, SEEDS + number), adds))


def come_to_rest(memory: MemoryPipeline) -> None:
    """Return when nothing is left to do; pages of rings that are not full stay there.

    Raises:
        RuntimeError: it never does.
    """
    deadline = time.monotonic() + REST_S
    while not at_rest(memory):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the pipeline does not come to rest within {REST_S:g} s: {memory.stats().workers}")
        time.sleep(LOOK_S)


def _timed(memory: MemoryPipeline, page: Page, pause_s: float) -> float:
    time.sleep(pause_s)
    begun = time.perf_counter()
    memory.add(**page)
    return time.perf_counter() - begun


class Row(NamedTuple):
    """Pages that a peer adds one after the other, for a user of its own, asking ``base_url``, writing to ``folder``."""

    pages: Sequence[Page]
    base_url: str
    folder: Path


def their_adds(
    options: Options, other: Peer, base_url: str, users: int, pause_s: float | None = None, adds: int = ADDS
) -> list[list[float]]:
    """Return the same of a peer that asks the same endpoint, by the same embedding model."""
    with options.store() as folder:
        pages = [row_of(number, adds) for number in range(users)]
        found: list[list[float]] = their_rows(other, [Row(row, base_url, folder) for row in pages], pause_s=pause_s)[
            "seconds"
        ]
    return found


def their_rows(
    other: Peer, rows: Sequence[Row], questions: Sequence[str] = (), pause_s: float | None = None
) -> dict[str, Any]:
    """Have ``memoryos-pro`` add ``rows``, and answer questions to the last one's user; return what each took."""
    told: dict[str, Any] = other.run(
        {
            "users": [
                {
                    "pages": [[page["user_input"], page["agent_response"]] for page in row.pages],
                    "base_url": row.base_url,
                    "folder": str(row.folder),
                }
                for row in rows
            ],
            "questions": list(questions),
            "pause_s": PAUSE_S if pause_s is None else pause_s,
            "model": str(find_model(MINILM).folder),
            "capacity": CAPACITY,
        }
    )
    return told
