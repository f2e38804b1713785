"""Pages that were set aside are worked on again on request, and what came of it is there after reopening."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mos_pipeline import InputError, MemoryPipeline
from mos_pipeline.engine import embedding, llm_role
from tests.faults import stages
from tests.faults.common import PATIENCE_S, check_consistent, check_found, check_order, fill, until
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "runtime__restart_backoff_s": 0.001,
    "llm__processes": 1,
    "short_term__capacity": 2,
    "runtime__max_attempts": 2,
}
DEADLY: list[tuple[ModuleType, str, type]] = [
    (embedding, "EmbedStage", stages.PoisonedEmbedStage),
    (llm_role, "TaskStage", stages.PoisonedTaskStage),
]


def poisoned_store(path: Path, patch: pytest.MonkeyPatch, home: ModuleType, stage: str, deadly: type) -> list[str]:
    """Make a store with two pages set aside, one amid others and one behind them; return their ids."""
    patch.setattr(home, stage, deadly)
    with open_fake(path, **SETTINGS) as memory:
        fill(memory, 9)
        middle = memory.add("ben", f"number4711 {stages.POISON} in the garden.", "Better not eat that.")
        fill(memory, 8, first=21)
        last = memory.add("dan", f"number4712 {stages.POISON} again.", "No.")
        fill(memory, 1, users=("dan",), first=50)
        memory.wait_idle(PATIENCE_S)
        assert set(memory.stats().set_aside) == {middle, last}
    return [middle, last]


def check_whole(memory: MemoryPipeline, ids: list[str]) -> None:
    stats = memory.stats()
    assert not stats.set_aside
    assert (stats.backlog_pages, stats.backlog_bytes) == (0, 0)
    check_consistent(memory)
    pages = all_pages(memory)
    accepted: dict[str, list[str]] = {}
    for page in pages:
        accepted.setdefault(page.user_id, []).append(page.page_id)
    check_order(memory, accepted)
    check_found(memory, [page for page in pages if page.page_id in ids])
    placed = [page_id for user in memory.users() for one in memory.sessions(user) for page_id in one.page_ids]
    assert set(ids) <= set(placed), "a page that was retried is in no session"
    assert memory.verify().ok


def test_what_was_set_aside_is_worked_on_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        ids = poisoned_store(tmp_path, patch, *DEADLY[0])
    with open_fake(tmp_path, **SETTINGS) as memory:
        assert memory.retry() == 2
        assert memory.retry() == 0
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, ids)
        memory.forget(page_id=all_pages(memory)[0].page_id)
        memory.wait_idle(PATIENCE_S)
        memory.compact(PATIENCE_S)
        check_whole(memory, ids)
    with open_fake(tmp_path, read_only=True) as reader:
        assert not reader.stats().set_aside
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, ids)


def test_a_retry_that_was_asked_for_is_not_lost_with_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        ids = poisoned_store(tmp_path, patch, *DEADLY[1])
    slow = {**SETTINGS, "embedding__fake_ms_per_text": 60_000, "runtime__close_timeout_s": 2.0}
    with open_fake(tmp_path, **slow) as memory:
        assert memory.retry() == 2
        until(lambda: not memory.stats().unwritten, "it is written that they are to be worked on")
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        check_whole(memory, ids)


def test_what_still_can_not_be_worked_on_is_set_aside_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = poisoned_store(tmp_path, monkeypatch, *DEADLY[0])
    with open_fake(tmp_path, **SETTINGS) as memory:
        assert memory.retry() == 2
        memory.wait_idle(PATIENCE_S)
        stats = memory.stats()
        assert set(stats.set_aside) == set(ids)
        assert (stats.backlog_pages, stats.backlog_bytes) == (0, 0)
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        assert set(memory.stats().set_aside) == set(ids)
        assert not any(worker.restarts for worker in memory.stats().workers.values()), "it was tried again"


def test_a_reader_can_not_ask_for_it_nor_who_has_no_workers(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory, pytest.raises(InputError, match="workers=False"):
        memory.retry()
    with open_fake(tmp_path, read_only=True) as reader, pytest.raises(InputError, match="read-only"):
        reader.retry()
