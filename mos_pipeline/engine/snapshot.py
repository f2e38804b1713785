"""A snapshot of the engine's figures."""

from __future__ import annotations

from mos_pipeline.engine.batches import LLM
from mos_pipeline.engine.embedding import EMBEDDER
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.persistence import WRITER
from mos_pipeline.metrics import Stats, WorkerStats

__all__ = ["snapshot"]


def snapshot(engine: Engine) -> Stats:
    """Return the engine's figures at this moment."""
    with engine.coordinator.lock:
        engine.coordinator.absorb()
        state, scopes = engine.state, list(engine.state.scopes)
        usage = engine.embedding.pool.usage if engine.embedding.has_pool else None
        aside = {seq: reason for scope in scopes for seq, reason in scope.aside.items()}
        pages = engine.browsing.pages(list(aside))
        return Stats(
            path=str(engine.store.folder.root),
            pages=state.pages.kept,
            users=len({scope.user_id for scope in scopes if state.pages.count_of(scope.number)}),
            sessions=sum(len(scope.mid_term) for scope in scopes),
            facts=sum(len(scope.facts(of_user=of_user)) for scope in scopes for of_user in (True, False)),
            forgotten=len(engine.forgetting.dead),
            backlog_pages=state.pages.kept - state.pages.embedded - sum(state.pages.row(seq) < 0 for seq in aside),
            backlog_bytes=engine.intake.backlog_bytes,
            in_flight_texts=engine.embedding.in_flight,
            unwritten=engine.persistence.outstanding,
            restored=engine.restored.is_set(),
            vectors=usage.used if usage is not None else 0,
            vector_bytes=usage.allocated_bytes if usage is not None else 0,
            set_aside={page.page_id: reason for page, reason in zip(pages, aside.values(), strict=True)},
            model=engine.model,
            damage=[f"{item.path}, offset {item.offset}: {item.reason}" for item in engine.store.damage],
            workers=_workers(engine),
        )


def _workers(engine: Engine) -> dict[str, WorkerStats]:
    if engine.supervisor is None:
        return {}
    states = {role: engine.supervisor.state(role) for role in (WRITER, EMBEDDER, LLM)}
    return {
        role: WorkerStats(state.state, state.pids, state.waiting, state.restarts, state.error)
        for role, state in states.items()
    }
