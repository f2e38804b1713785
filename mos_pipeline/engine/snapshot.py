"""A snapshot of the engine's figures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from mos_pipeline.engine.batches import LLM
from mos_pipeline.engine.browsing import Browsing
from mos_pipeline.engine.counting import Counts, counted
from mos_pipeline.engine.embedding import EMBEDDER
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.lifting import unlifted
from mos_pipeline.engine.page_vectors import PageVectors
from mos_pipeline.engine.persistence import WRITER
from mos_pipeline.engine.reader import ReaderEngine
from mos_pipeline.engine.view import View
from mos_pipeline.memory.owed import OF_BATCH, OF_PROMOTION
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.metrics import UP, Stats, TaskStats, WorkerStats
from mos_pipeline.runtime.memory_use import own_memory
from mos_pipeline.runtime.meter import Tally
from mos_pipeline.runtime.supervisor import PoolState
from mos_pipeline.runtime.vector_pool import PoolUsage
from mos_pipeline.store.folder import Damage

__all__ = ["reader_snapshot", "snapshot"]

COMPUTING = ("backend", "precision", "threads", "batch_word_pieces", "ms_per_batch")  # of what the embedder tells


def snapshot(engine: Engine) -> Stats:
    """Return the engine's figures at this moment; nobody waits long for the lock meanwhile."""
    workers = _workers(engine)
    with engine.coordinator.lock:
        engine.coordinator.absorb()
    counts = counted(engine.state, engine.coordinator.lock)
    with engine.coordinator.lock:
        engine.coordinator.absorb()
        usage = engine.embedding.pool.usage if engine.embedding.has_pool else None
        return Stats(
            path=str(engine.store.folder.root),
            **_told(engine.state, engine.browsing, counts),
            forgotten=len(engine.forgetting.dead),
            backlog_bytes=engine.intake.backlog_bytes,
            in_flight_texts=engine.embedding.in_flight,
            unwritten=engine.persistence.outstanding,
            restored=engine.restored.is_set(),
            **_vectors(usage),
            model=engine.model,
            unlifted=engine.processing.unlifted,
            damage=_damage(engine.store.damage),
            workers=workers,
            tasks=_tasks(engine.supervisor.state(LLM) if engine.supervisor is not None else None),
            endpoint=_endpoint(engine),
            waiting_pages=engine.batches.pages,
            accepted_pages=engine.coordinator.absorbed,
            embedded_pages=engine.processing.embedded,
            placed_pages=engine.batches.placed,
            written_pages=engine.persistence.written_pages,
            embedded_texts=engine.embedding.computed,
            reused_texts=engine.embedding.reused,
            known_texts=engine.embedding.known,
            memory=own_memory(os.getpid()),
            embedder=_embedder(engine.supervisor.state(EMBEDDER) if engine.supervisor is not None else None),
        )


def reader_snapshot(reader: ReaderEngine, view: View) -> Stats:
    """Return a reader's figures: of what its last look has found; the owner's work is not to be seen from there.

    ``vector_bytes`` are its own memory; what it searches where the owner has it costs nothing there.
    """
    counts = counted(view.state, view.lock)
    with view.lock:
        return Stats(
            path=str(reader.store.folder.root),
            **_told(view.state, view.browsing, counts),
            forgotten=0,
            backlog_bytes=0,
            in_flight_texts=0,
            unwritten=0,
            restored=True,
            **_copies(view.vectors),
            model=view.identity or {},
            unlifted=unlifted(view.state, view.state.scopes, view.stale),
            damage=_damage(reader.store.damage),
            workers=_own(reader),
            embedder=_embedder(reader.questions.state() if reader.questions is not None else None),
            tasks=_tasks(reader.llm.state() if reader.llm is not None else None),
            memory=own_memory(os.getpid()),
        )


def _told(state: MemoryState, browsing: Browsing, counts: Counts) -> dict[str, Any]:
    # Counted before; what was forgotten or taken up again since then is set aside no more.
    aside = {seq: reason for seq, reason in counts.aside.items() if _is_aside(state, seq)}
    pages = browsing.pages(list(aside))
    return {
        "pages": state.pages.kept,
        "users": len(counts.users),
        "sessions": counts.sessions,
        "facts": counts.facts,
        "backlog_pages": state.pages.kept - state.pages.embedded - sum(state.pages.row(seq) < 0 for seq in aside),
        "owed": {task: counts.owed[task] for task in (*OF_BATCH, *OF_PROMOTION) if counts.owed[task]},
        "set_aside": {page.page_id: reason for page, reason in zip(pages, aside.values(), strict=True)},
    }


def _is_aside(state: MemoryState, seq: int) -> bool:
    return state.pages.is_kept(seq) and seq in state.scopes[state.pages.scope(seq)].aside


def _vectors(usage: PoolUsage | None) -> dict[str, Any]:
    if usage is None:
        return {"vectors": 0, "vector_bytes": 0}
    return {"vectors": usage.used, "vector_bytes": usage.allocated_bytes}


def _copies(vectors: PageVectors | None) -> dict[str, Any]:
    told = _vectors(vectors.copies.usage if vectors is not None else None)
    return told | {"vectors": told["vectors"] + (vectors.in_place if vectors is not None else 0)}


def _damage(damage: Iterable[Damage]) -> list[str]:
    return [f"{item.path}, offset {item.offset}: {item.reason}" for item in damage]


def _workers(engine: Engine) -> dict[str, WorkerStats]:
    if engine.supervisor is None:
        return {}
    return {role: _worker(engine.supervisor.state(role)) for role in (WRITER, EMBEDDER, LLM)}


def _embedder(pool: PoolState | None) -> dict[str, Any]:
    return {} if pool is None else {name: pool.info[name] for name in COMPUTING if name in pool.info}


def _endpoint(engine: Engine) -> str:
    if engine.supervisor is None or engine.config.llm.provider == "extractive":
        return ""
    since = engine.supervisor.state(LLM).down_since
    return UP if since is None else f"down since {datetime.fromtimestamp(since):%Y-%m-%d %H:%M:%S}"


def _tasks(pool: PoolState | None) -> dict[str, TaskStats]:
    tallies = pool.meter.tallies if pool is not None else {}
    return {kind: _task(tallies[kind]) for kind in sorted(tallies)}


def _task(tally: Tally) -> TaskStats:
    return TaskStats(
        calls=tally.calls,
        tokens_in=tally.tokens_in,
        tokens_out=tally.tokens_out,
        retries=tally.retries,
        repairs=tally.repairs,
        fallbacks=tally.fallbacks,
        median_ms=round(tally.quantile_s(0.5) * 1000),
        p99_ms=round(tally.quantile_s(0.99) * 1000),
    )


def _own(reader: ReaderEngine) -> dict[str, WorkerStats]:
    """Return the pools of a reader's own that were needed so far."""
    pools = {EMBEDDER: reader.questions, LLM: reader.llm}
    states = {role: pool.state() for role, pool in pools.items() if pool is not None}
    return {role: _worker(state) for role, state in states.items() if state is not None}


def _worker(state: PoolState) -> WorkerStats:
    memory = tuple(map(own_memory, state.pids))
    return WorkerStats(state.state, state.pids, state.waiting, state.restarts, state.error, memory)
