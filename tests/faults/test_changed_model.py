"""The embedding model's files are changed under a running pipeline, and its process dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline, WorkerError
from mos_pipeline.engine import embedding
from tests.faults.common import PATIENCE_S, check_consistent, nothing_left, until
from tests.faults.stages import CHANGED_TO, ChangedEmbedStage
from tests.readers.common import settled
from tests.support import open_fake, page_text


def embedder_dies(memory: MemoryPipeline) -> None:
    before = memory.stats().workers["embedder"]
    os.kill(before.pids[0], signal.SIGKILL)
    until(lambda: memory.stats().workers["embedder"].restarts > before.restarts, "its death was noticed")


def test_an_embedder_that_comes_back_with_another_model_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "EmbedStage", ChangedEmbedStage)
    settings = {"short_term__capacity": 1, "runtime__restart_backoff_s": 0.01}
    with nothing_left(), open_fake(tmp_path, **settings) as memory:
        memory.add("ann", *page_text(0))
        settled(memory)
        embedder_dies(memory)
        memory.add("ann", *page_text(1))
        settled(memory)  # the same model came back
        vectors = memory.stats().vectors
        monkeypatch.setenv(CHANGED_TO, "f" * 64)
        embedder_dies(memory)
        memory.add("ann", *page_text(2))
        with pytest.raises(WorkerError, match=r"another model .*f{12}.* than .*open the store again"):
            memory.wait_idle(PATIENCE_S)
        assert memory.stats().vectors == vectors
        assert memory.retrieve("ann", page_text(2)[0], timeout=0.5).degraded
    monkeypatch.delenv(CHANGED_TO)
    with open_fake(tmp_path, **settings) as memory:
        settled(memory)
        check_consistent(memory)
        assert not memory.retrieve("ann", page_text(2)[0], timeout=PATIENCE_S).degraded
