"""Stages that die of a certain word, or leave when told to; children import them from here, by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mos_pipeline import config
from mos_pipeline.errors import WorkerError
from mos_pipeline.runtime.worker import Report
from mos_pipeline.stages.backend import Prepared, Vectors
from mos_pipeline.stages.embed import EmbedStage
from mos_pipeline.stages.fake_backend import FakeBackend
from mos_pipeline.stages.tasks import TaskStage
from mos_pipeline.stages.write import WriteStage, build_writer

__all__ = [
    "BROKEN",
    "CHANGED_TO",
    "COUNTED_IN",
    "HELD_UNTIL",
    "POISON",
    "BrokenEmbedStage",
    "ChangedEmbedStage",
    "CountedEmbedStage",
    "HeldEmbedStage",
    "LeavingEmbedStage",
    "LeavingTaskStage",
    "PoisonedEmbedStage",
    "PoisonedTaskStage",
    "build_leaving_writer",
]

BROKEN = "the model is broken"
POISON = "belladonna"
CHANGED_TO = "CHANGED_TO"
COUNTED_IN = "COUNTED_IN"
HELD_UNTIL = "HELD_UNTIL"


class _DeadlyReport:
    """Passes reports on; kills this process once it has begun work that ``deadly`` tells of."""

    def __init__(self, report: Report, deadly: Callable[[int], bool]) -> None:
        self._report = report
        self._deadly = deadly

    def started(self, unit_ids: Sequence[int]) -> None:
        self._report.started(unit_ids)
        if any(map(self._deadly, unit_ids)):
            os.kill(os.getpid(), signal.SIGKILL)

    def piece(self, unit_id: int, piece: Any) -> None:
        self._report.piece(unit_id, piece)

    def done(self, unit_id: int, result: Any) -> None:
        self._report.done(unit_id, result)

    def failed(self, unit_id: int, message: str) -> None:
        self._report.failed(unit_id, message)

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        self._report.metered(told)

    def endpoint(self, down_since: float | None) -> None:
        self._report.endpoint(down_since)


class BrokenEmbedStage(EmbedStage):
    """An embedder whose model can't be loaded."""

    def prepare(self) -> dict[str, Any]:
        raise WorkerError(BROKEN)


class ChangedEmbedStage(EmbedStage):
    """An embedder whose model has the digest that the variable CHANGED_TO names, where there is one."""

    def prepare(self) -> dict[str, Any]:
        info = super().prepare()
        return {**info, "digest": os.environ.get(CHANGED_TO, info["digest"])}


class PoisonedEmbedStage(EmbedStage):
    """An embedder that dies of a text with the poison in it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._deadly: set[int] = set()

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        texts = payload if kind == "query" else payload[0]
        if any(POISON in text for text in texts):
            self._deadly.add(unit_id)
        super().accept(unit_id, kind, payload)

    def step(self, report: Report) -> None:
        super().step(_DeadlyReport(report, self._deadly.__contains__))


class CountedEmbedStage(EmbedStage):
    """An embedder that adds a byte for each text it computes to the file that COUNTED_IN names."""

    def __init__(self, settings: config.Embedding, *_: Any) -> None:
        self._counts = False
        super().__init__(settings, backend=_Counted(settings, self))

    def prepare(self) -> dict[str, Any]:
        found = super().prepare()
        self._counts = True  # what was computed to warm up is none of the texts
        return found

    def count(self, texts: int) -> None:
        if self._counts:
            with Path(os.environ[COUNTED_IN]).open("ab") as file:
                file.write(b"." * texts)


class _Counted(FakeBackend):
    def __init__(self, settings: config.Embedding, stage: CountedEmbedStage) -> None:
        super().__init__(settings)
        self._stage = stage

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        self._stage.count(len(items))
        return super().encode(items)


class HeldEmbedStage(EmbedStage):
    """An embedder that begins with its work once the file is there that the variable HELD_UNTIL names."""

    def step(self, report: Report) -> None:
        while not Path(os.environ[HELD_UNTIL]).exists():
            time.sleep(0.01)
        super().step(report)


class PoisonedTaskStage(TaskStage):
    """An LLM worker that dies of a page with the poison in it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._deadly: set[int] = set()

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        told = payload if kind == "batches" else [payload]
        if any(POISON in text for each in told for page in each["pages"] for text in page):
            self._deadly.add(unit_id)
        super().accept(unit_id, kind, payload)

    def step(self, report: Report) -> None:
        super().step(_DeadlyReport(report, self._deadly.__contains__))


def _leave_when_told() -> None:
    """Have SIGUSR1 end this process at once, as if all were well: with exit code 0."""
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))


class LeavingEmbedStage(EmbedStage):
    """An embedder that leaves when it is told to."""

    def prepare(self) -> dict[str, Any]:
        _leave_when_told()
        return super().prepare()


class LeavingTaskStage(TaskStage):
    """An LLM worker that leaves when it is told to."""

    def prepare(self) -> dict[str, Any]:
        _leave_when_told()
        return super().prepare()


def build_leaving_writer(*args: Any) -> WriteStage:
    """Make a writer that leaves when it is told to."""
    _leave_when_told()
    return build_writer(*args)
