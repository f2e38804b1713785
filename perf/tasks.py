"""What the extractive tasks of an ingestion take of the processor.

They are done once more, one after the other, in this process. Told as well is what the LLM pool's processes took for
them, beside a model that streams its weights through the caches, and with the way there and back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mos_pipeline import config
from mos_pipeline.messages import decode, encode
from mos_pipeline.stages.tasks import TaskStage
from perf.result import Figure, at_most

__all__ = ["figures", "task_seconds"]

MS = 1000.0
LOADED = "with what its processes load for their first tasks"


def figures(tasks: Sequence[tuple[str, Any]], cpu: float, pages: int) -> list[Figure]:
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
