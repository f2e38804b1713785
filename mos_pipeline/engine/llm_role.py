"""What the LLM pool's processes are made of: they extract, or they ask an endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from mos_pipeline.config import Config, Llm, LongTerm
from mos_pipeline.engine.batches import LLM
from mos_pipeline.runtime.supervisor import Role
from mos_pipeline.runtime.worker import Stage
from mos_pipeline.stages.tasks import TaskStage

__all__ = ["llm_role"]

CREDIT = 1 << 20
ALIVE_S = 1.0  # so often a worker says that it lives, while an endpoint takes its time


def build_calls(llm: Llm, long_term: LongTerm, alive_every_s: float, spent: Sequence[Sequence[float]]) -> Stage:
    """Make the stage that asks an endpoint; only its own process loads what that needs."""
    from mos_pipeline.stages.calls import CallStage

    return CallStage(llm, long_term, alive_every_s, spent)


def llm_role(config: Config, *, processes: int | None = None) -> Role:
    """Return the role, with ``llm.processes`` workers where ``processes`` is None."""
    llm, long_term = config.llm, config.long_term
    workers = llm.processes if processes is None else processes
    if llm.provider == "extractive":
        return Role(LLM, TaskStage, (llm, long_term), workers=workers, credit=CREDIT)
    args = llm, long_term, min(ALIVE_S, config.runtime.work_timeout_s / 4)
    units = llm.max_in_flight
    return Role(LLM, build_calls, args, workers=workers, credit=CREDIT, units=units, cancels=True, heirs=True)
