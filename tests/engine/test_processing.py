"""How batches go their way, told by what becomes of them: real processes, the fake model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mos_pipeline import MemoryPipeline, ModelNotFoundError
from mos_pipeline.engine import processing
from mos_pipeline.engine.desk import Answer
from mos_pipeline.engine.embedding import RowsAnswer
from mos_pipeline.runtime.supervisor import Outcome
from tests.faults.common import PATIENCE_S, fill, until
from tests.support import open_fake

CAPACITY = 4


def talk(memory: MemoryPipeline, number: int) -> None:
    memory.add("tom", f"The beagle in the garden found bone{number} today.", "What a clever beagle in the garden.")


def overviews(memory: MemoryPipeline) -> list[str]:
    chains = memory._engine.state.chains
    return [chains.overview(seq) for seq in range(memory.stats().pages)]


def previous_overviews(memory: MemoryPipeline) -> list[str | None]:
    """Return a list to which is appended what each continuity task is told of the overview so far."""
    desk, told = memory._engine.desk, list[str | None]()
    submit = desk.submit

    def watched(role: str, kind: str, payload: Any, answer: Answer, **how: bool) -> int:
        if kind == "batch":
            told.append(payload["previous"] and payload["previous"]["overview"])
        return submit(role, kind, payload, answer, **how)

    desk.submit = watched  # type: ignore[method-assign]
    return told


def test_the_overview_goes_on_from_batch_to_batch_whether_or_not_the_first_is_applied(tmp_path: Path) -> None:
    pages = 12
    with open_fake(tmp_path / "one by one", short_term__capacity=1) as memory:
        told, after = previous_overviews(memory), list[str]()
        for number in range(pages):
            talk(memory, number)
            memory.wait_idle(PATIENCE_S)
            after.append(overviews(memory)[number])
        assert told == [None, *after[:-1]]
        assert len(set(after)) > 1
        expected = overviews(memory)
        chains = memory._engine.state.chains
        assert chains.pages_of(chains.chain_of(0)) == list(range(pages))
    with open_fake(tmp_path / "at once", workers=False) as memory:
        for number in range(pages):
            talk(memory, number)
    with open_fake(tmp_path / "at once", short_term__capacity=1) as memory:
        memory.wait_idle(PATIENCE_S)
        assert overviews(memory) == expected


def test_where_a_summary_can_not_be_embedded_its_pages_centroid_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_fake(tmp_path, short_term__capacity=CAPACITY) as memory:
        embedding = memory._engine.embedding
        send = embedding.send

        def refuse_summaries(owner: int, texts: Sequence[str], answer: RowsAnswer, *, ahead: bool = False) -> None:
            if owner == memory._engine.state.scopes[0].session_rows:
                rows = list(map(int, embedding.pool.allocate(owner, len(texts))))
                answer(rows, Outcome(0, "refused", error="too odd"))
            else:
                send(owner, texts, answer, ahead=ahead)

        monkeypatch.setattr(embedding, "send", refuse_summaries)
        for number in range(CAPACITY):
            talk(memory, number)
        memory.wait_idle(PATIENCE_S)
        scope, pages, pool = memory._engine.state.scopes[0], memory._engine.state.pages, embedding.pool
        assert scope.mid_term.sessions
        for session in scope.mid_term.sessions:
            vectors = pool.read([pages.row(seq) for seq in session.seqs]).astype(np.float32)
            centroid = vectors.mean(axis=0)
            found = pool.read([session.row])[0].astype(np.float32)
            assert np.allclose(found, centroid / np.linalg.norm(centroid), atol=2e-3)


@pytest.mark.slow
def test_while_nothing_can_be_written_no_more_work_is_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "MAX_UNWRITTEN_BYTES", 0)
    settings: dict[str, Any] = {"store__frame_pages": 8, "embedding__in_flight_texts": 32}
    with open_fake(tmp_path, **settings) as memory:
        until(lambda: memory.stats().workers["writer"].state == "ready", "the writer is ready")
        until(lambda: memory.stats().workers["embedder"].state == "ready", "the embedder is ready")
        (writer,) = memory.stats().workers["writer"].pids
        os.kill(writer, signal.SIGSTOP)
        try:
            fill(memory, 600)
            until(lambda: memory._engine.persistence.outstanding_bytes, "something waits to be written")
            time.sleep(0.5)
            assert memory._engine.state.pages.embedded < 300
        finally:
            os.kill(writer, signal.SIGCONT)
        memory.wait_idle(PATIENCE_S)
        assert memory._engine.state.pages.embedded == 600
        assert memory._engine.persistence.outstanding_bytes == 0


def test_who_waits_when_the_work_can_not_be_done_any_more_is_told_at_once(tmp_path: Path) -> None:
    with MemoryPipeline.open(tmp_path, embedding__model="no/such-model") as memory:
        memory.add("tom", "kept all the same", "")
        with pytest.raises(ModelNotFoundError):
            memory.wait_idle(PATIENCE_S)
        again = time.monotonic()
        with pytest.raises(ModelNotFoundError):
            memory.wait_idle(30.0)
        assert time.monotonic() - again < 15.0
