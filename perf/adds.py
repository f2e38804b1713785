"""What each add takes in a row of them, by fresh users: does it fall off a cliff once short-term memory is full?

The next user begins when everything of the one before is done, so each row meets an idle pipeline.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from mos_pipeline import MemoryPipeline
from mos_pipeline.stages.models import MINILM, find_model
from perf.options import Options
from perf.peers import Peer
from perf.pipelines import at_rest, wait_ready
from perf.result import Aim, Figure, Series
from perf.texts import Page, synthetic_pages
from perf.timing import median

__all__ = ["ADDS", "CAPACITY", "cliff", "come_to_rest", "in_order", "openai_settings", "our_adds", "their_adds"]

CAPACITY = 9
ADDS, PAUSE_S = 20, 0.02
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
    first, last = ([US * spent for user in seconds for spent in user[which]] for which in (early, late))
    return [
        Figure.of(f"{name}: {_told(early)}", "µs", first),
        Figure.of(f"{name}: {_told(late)}", "µs", last),
        Figure.ratio(f"{name}: {_told(late)} over {_told(early)}", last, first, *aims, note=note),
    ]


def in_order(name: str, seconds: Sequence[Sequence[float]]) -> Series:
    """Return the curve of each add in its order: the median of all users."""
    medians = [(number, US * median(spent)) for number, spent in enumerate(zip(*seconds, strict=True), 1)]
    return Series("the cliff", name, "add, in order", "µs", [(float(number), spent) for number, spent in medians])


def _told(which: slice) -> str:
    first, stop, _ = which.indices(ADDS)
    return f"{first + 1}–{stop}"


def our_adds(
    options: Options, settings: Mapping[str, Any], users: int, pause_s: float | None = None, adds: int = ADDS
) -> list[list[float]]:
    """Return what each of so many adds of each user takes in a pipeline with these settings, in seconds.

    Before each is a pause of ``pause_s`` seconds; ``PAUSE_S`` where None.
    """
    pause_s = PAUSE_S if pause_s is None else pause_s
    found = []
    with options.store() as store, options.open(store, **settings) as memory:
        wait_ready(memory)
        for number in range(users):
            pages = islice(synthetic_pages(f"user{number}", number), adds)
            found.append([_timed(memory, page, pause_s) for page in pages])
            come_to_rest(memory)
    return found


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


def their_adds(
    options: Options, other: Peer, base_url: str, users: int, pause_s: float | None = None
) -> list[list[float]]:
    """Return the same of a peer that asks the same endpoint, by the same embedding model."""
    with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=options.folder) as folder:
        pages = [list(islice(synthetic_pages("user", number), ADDS)) for number in range(users)]
        task = {
            "users": [[[page["user_input"], page["agent_response"]] for page in row] for row in pages],
            "pause_s": PAUSE_S if pause_s is None else pause_s,
            "folder": folder,
            "model": str(find_model(MINILM).folder),
            "base_url": base_url,
            "capacity": CAPACITY,
        }
        found: list[list[float]] = other.run(task)["seconds"]
    return found
