"""Batches of a backlog go out together where the embedder is quick, and become the same memory as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.engine import coordinator
from mos_pipeline.engine.desk import Answer
from mos_pipeline.engine.embedding import RowsAnswer
from mos_pipeline.memory.state import Scope
from mos_pipeline.runtime.supervisor import Outcome
from tests.faults.common import PATIENCE_S, check_consistent, fill
from tests.support import open_fake

CAPACITY = 4
PAGES = 50
SLOW_MS = 6.0  # for a text: more than a turn's time for a batch


def backlog(path: Path, **settings: Any) -> MemoryPipeline:
    """Open a store in which pages of one user wait, and nothing was done with them."""
    with open_fake(path, workers=False, short_term__capacity=CAPACITY) as memory:
        fill(memory, PAGES, ["tom"])
    return open_fake(path, short_term__capacity=CAPACITY, **settings)


def units(memory: MemoryPipeline) -> dict[str, list[int]]:
    """Return, by kind, lists to which the length of each unit's payload is appended."""
    desk, seen = memory._engine.desk, dict[str, list[int]]()
    submit = desk.submit

    def watched(role: str, kind: str, payload: Any, answer: Answer, **how: bool) -> int:
        seen.setdefault(kind, []).append(len(payload[0]) if role == "embedder" else len(payload))
        return submit(role, kind, payload, answer, **how)

    desk.submit = watched  # type: ignore[method-assign]
    return seen


def memory_of(memory: MemoryPipeline) -> Any:
    state = memory._engine.state
    seqs = range(memory.stats().pages)
    chains = [(state.chains.chain_of(seq), state.chains.overview(seq)) for seq in seqs]
    sessions = [(each.summary, each.keywords, each.page_ids) for each in memory.sessions("tom")]
    texts = [[page.user_input for page in map(memory.get, ids) if page] for _, _, ids in sessions]
    told = [(summary, keywords, said) for (summary, keywords, _), said in zip(sessions, texts, strict=True)]
    return chains, sorted(told), memory.profile("tom").text


def test_what_goes_together_becomes_the_same_memory_as_one_by_one(tmp_path: Path) -> None:
    with backlog(tmp_path / "quick") as memory:
        seen = units(memory)
        memory.wait_idle(PATIENCE_S)
        check_consistent(memory)
        together = memory_of(memory)
        assert max(seen["embed"]) > CAPACITY
        assert max(seen["embed"]) % CAPACITY == 0
        assert seen["batches"]
    with backlog(tmp_path / "slow", embedding__fake_ms_per_text=SLOW_MS) as memory:
        seen = units(memory)
        memory.wait_idle(PATIENCE_S)
        assert max(seen["embed"]) <= CAPACITY
        assert memory_of(memory) == together


def test_a_unit_of_batches_that_cannot_be_answered_is_tried_batch_by_batch(tmp_path: Path) -> None:
    with backlog(tmp_path) as memory:
        desk, refused = memory._engine.desk, list[int]()
        submit = desk.submit

        def refuse(role: str, kind: str, payload: Any, answer: Answer, **how: bool) -> int:
            if kind == "batches":
                refused.append(len(payload))
                memory._engine.inbox.put(lambda: answer(Outcome(0, "refused", error="too many")))
                return 0
            return submit(role, kind, payload, answer, **how)

        desk.submit = refuse  # type: ignore[method-assign]
        memory.wait_idle(PATIENCE_S)
        assert refused
        assert not memory.stats().set_aside
        assert sum(len(session.page_ids) for session in memory.sessions("tom")) == PAGES // CAPACITY * CAPACITY
        check_consistent(memory)


def test_summaries_that_cannot_be_embedded_together_are_tried_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with backlog(tmp_path) as memory:
        embedding, refused = memory._engine.embedding, list[int]()
        send = embedding.send

        def refuse_many(owner: int, texts: Sequence[str], answer: RowsAnswer, *, ahead: bool = False) -> None:
            if ahead and len(texts) > 2:  # of more than one batch
                refused.append(len(texts))
                rows = list(map(int, embedding.pool.allocate(owner, len(texts))))
                answer(rows, Outcome(0, "refused", error="too many"))
            else:
                send(owner, texts, answer, ahead=ahead)

        monkeypatch.setattr(embedding, "send", refuse_many)
        memory.wait_idle(PATIENCE_S)
        assert refused
        assert memory.stats().vectors == memory._engine.state.pages.embedded + memory.stats().sessions
        for session in memory._engine.state.scopes[0].mid_term.sessions:
            assert np.any(embedding.pool.read([session.row]))
        check_consistent(memory)


def test_no_call_applies_more_than_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with backlog(tmp_path) as memory:
        batches, applied = memory._engine.batches, list[int]()
        advance, apply = batches.advance, batches._apply

        def watched(scope: Scope) -> None:
            applied.append(0)
            advance(scope)

        def counted(scope: Scope, batch: Any) -> None:
            applied[-1] += 1
            apply(scope, batch)

        monkeypatch.setattr(batches, "advance", watched)
        monkeypatch.setattr(batches, "_apply", counted)
        memory.wait_idle(PATIENCE_S)
        assert sum(applied) == PAGES // CAPACITY
        assert max(applied) == 1


def test_batches_go_on_however_long_the_rest_of_a_turn_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "BATCHES_S", 0.0)  # their time is always over when their turn comes
    with backlog(tmp_path) as memory:
        memory.wait_idle(20)
        assert sum(len(session.page_ids) for session in memory.sessions("tom")) == PAGES // CAPACITY * CAPACITY


def test_no_user_has_more_texts_at_the_embedder_than_all_may_have(tmp_path: Path) -> None:
    with backlog(tmp_path, embedding__in_flight_texts=2 * CAPACITY) as memory:
        seen = units(memory)
        memory.wait_idle(PATIENCE_S)
        assert max(seen["embed"]) <= 2 * CAPACITY
