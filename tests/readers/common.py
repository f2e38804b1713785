"""What the tests of readers share: pipelines opened beside their owner, and what is told of a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from tests.support import all_pages, open_fake, page_text

__all__ = ["IDLE_S", "SETTINGS", "fill", "open_reader", "settled", "told"]

IDLE_S = 90.0
# Everything small, so that few pages bring many batches, frames, journals, and promotions.
SETTINGS: dict[str, Any] = {
    "short_term__capacity": 3,
    "mid_term__heat_threshold": 3.0,
    "mid_term__heat_alpha": 0.0,  # what is asked here changes nothing
    "mid_term__heat_gamma": 0.0,
    "long_term__promotion_pages": 6,
    "store__frame_pages": 4,
    "store__journal_bytes": 65536,
    "retrieval__timeout_s": IDLE_S,
}
QUERIES = ("velvet violin", "I adopted a beagle", "number3 harbour", "winter")


def open_reader(path: Path, **settings: Any) -> MemoryPipeline:
    """Open the store in ``path`` read-only, with the fake model."""
    return open_fake(path, read_only=True, **{**SETTINGS, **settings})


def fill(memory: MemoryPipeline, user_id: str, numbers: range) -> list[str]:
    """Add pages with something to learn from; return their ids."""
    return [_add(memory, user_id, number) for number in numbers]


def _add(memory: MemoryPipeline, user_id: str, number: int) -> str:
    said, answered = page_text(number)
    return memory.add(user_id, f"I live in town{number % 7}. {said}", answered, timestamp="2026-03-01 10:00:00")


def settled(memory: MemoryPipeline) -> MemoryPipeline:
    """Return the owner once all its work is done and written."""
    memory.wait_idle(IDLE_S)
    memory.flush(timeout=IDLE_S)
    return memory


def told(memory: MemoryPipeline, *, visits: bool = True) -> dict[str, Any]:
    """Return everything that a memory tells of its users, but its short-term pages: these an owner counts on."""
    return {user: _told_of(memory, user, visits=visits) for user in memory.users()} | {"pages": all_pages(memory)}


def _told_of(memory: MemoryPipeline, user: str, *, visits: bool) -> dict[str, Any]:
    sessions = sorted(memory.sessions(user, limit=1000), key=lambda session: session.session_id)
    found = [memory.retrieve(user, query, k=10) for query in QUERIES]
    return {
        "sessions": [(one.session_id, one.summary, one.keywords, one.page_ids) for one in sessions],
        "visits": [one.visits for one in sessions] if visits else None,
        "profile": memory.profile(user),
        "knowledge": [memory.knowledge(user, about=about) for about in ("user", "assistant")],
        "found": [(one.pages, one.user_knowledge, one.assistant_knowledge, one.overviews) for one in found],
        "degraded": [one.degraded for one in found],
    }
