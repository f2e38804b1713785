"""Work that kills its worker: the one page is set aside, kept, found and reported; everything else goes on."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mos_pipeline.engine import embedding, llm_role
from tests.faults import stages
from tests.faults.common import PATIENCE_S, check_consistent, check_found, check_order, fill, nothing_left
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "runtime__restart_backoff_s": 0.001,
    "llm__processes": 1,
    "short_term__capacity": 4,
    "runtime__max_attempts": 2,
}


@pytest.mark.parametrize(
    ("home", "stage", "deadly"),
    [(embedding, "EmbedStage", stages.PoisonedEmbedStage), (llm_role, "TaskStage", stages.PoisonedTaskStage)],
)
def test_a_page_that_kills_its_worker_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: ModuleType, stage: str, deadly: type
) -> None:
    monkeypatch.setattr(home, stage, deadly)
    with nothing_left(), open_fake(tmp_path / "store", **SETTINGS) as memory:
        fill(memory, 40)
        poisoned = memory.add("ben", f"number4711 {stages.POISON} in the garden.", "Better not eat that.")
        fill(memory, 40, first=40)
        memory.wait_idle(PATIENCE_S)
        stats = memory.stats()
        assert set(stats.set_aside) == {poisoned}
        assert "signal 9" in stats.set_aside[poisoned]
        assert (stats.backlog_pages, stats.backlog_bytes, stats.unwritten) == (0, 0, 0)
        assert stats.vectors == memory._engine.state.pages.embedded + stats.sessions, "rows were not given back"
        pages = all_pages(memory)
        assert [page.page_id for page in pages][40] == poisoned
    accepted: dict[str, list[str]] = {}
    for page in pages:
        accepted.setdefault(page.user_id, []).append(page.page_id)
    for _ in range(2):
        with nothing_left(), open_fake(tmp_path / "store", **SETTINGS) as memory:
            memory.wait_idle(PATIENCE_S)
            stats = memory.stats()
            assert set(stats.set_aside) == {poisoned}
            assert (stats.backlog_pages, stats.backlog_bytes) == (0, 0)
            assert not any(worker.restarts for worker in stats.workers.values()), "it was tried again"
            check_order(memory, accepted)
            check_consistent(memory)
            check_found(memory, [pages[40]], dense=False)
            check_found(memory, pages[:40:8] + pages[41::8])
            assert memory.get(poisoned) == pages[40]
            assert memory.verify().ok
