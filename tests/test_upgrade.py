"""A store that the first version wrote goes on with this one: its pages, vectors and sessions, and all that is new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline, Page
from tests.faults.common import PATIENCE_S, check_consistent, check_found, until
from tests.support import all_pages, open_fake, page_text, unpack

ARCHIVE = Path(__file__).parent / "data" / "store-format-1.tar.gz"
PAGES, IN_SEGMENTS = 66, 60  # the others are in its journal, which nobody closed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    unpack(ARCHIVE, tmp_path / "store")
    return tmp_path / "store"


def check_pages(pages: Sequence[Page]) -> None:
    """Check the pages against what was given to the first version."""
    assert [(page.user_input, page.agent_response) for page in pages] == [page_text(n) for n in range(PAGES)]
    for number, page in enumerate(pages[:IN_SEGMENTS]):
        assert page.user_id == ("ada", "bo", "cy")[number % 3]
        assert page.timestamp == f"2026-01-{number // 3 + 1:02} 10:00:00"
        assert page.metadata == ({"n": number} if number % 4 == 0 else {})
    for page in pages[IN_SEGMENTS:]:
        assert (page.user_id, page.timestamp, page.metadata) == ("ada", "2026-02-01 10:00:00", {})
    given = [page.page_id if page.page_id.startswith("given-") else None for page in pages]
    assert given == [f"given-{n}" if n % 10 == 0 and n < IN_SEGMENTS else None for n in range(PAGES)]
    assert len({page.page_id for page in pages}) == PAGES


def placed(memory: MemoryPipeline) -> Counter[str]:
    return Counter(page_id for user in memory.users() for one in memory.sessions(user) for page_id in one.page_ids)


@pytest.mark.parametrize("workers", [True, False])
def test_all_pages_are_there_and_found(root: Path, workers: bool) -> None:
    with open_fake(root, workers=workers) as memory:
        pages = all_pages(memory)
        check_pages(pages)
        assert sorted(memory.users()) == ["ada", "bo", "cy"]
        assert [memory.get(page.page_id) for page in pages] == pages
        assert sorted(page.page_id for user in memory.users() for page in all_pages(memory, user)) == sorted(
            page.page_id for page in pages
        )
        if workers:
            memory.wait_idle(PATIENCE_S)
            assert memory.stats().vectors >= PAGES
        check_found(memory, pages, dense=workers)
        assert memory.verify().ok


def test_sessions_are_there_before_any_model_is(root: Path) -> None:
    with open_fake(root, workers=False) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        found = placed(memory)
        assert found
        assert set(found.values()) == {1}
        sessions = {user: memory.sessions(user) for user in memory.users()}
    with open_fake(root) as memory:
        memory.wait_idle(PATIENCE_S)
        check_consistent(memory)
        assert found.keys() <= placed(memory).keys()
        for user, before in sessions.items():
            summaries = {one.session_id: one.summary for one in memory.sessions(user)}
            assert {one.session_id: one.summary for one in before}.items() <= summaries.items()


def test_it_takes_pages_and_loses_those_that_are_forgotten(root: Path) -> None:
    with open_fake(root) as memory:
        pages = all_pages(memory)
        assert memory.forget("bo") == sum(page.user_id == "bo" for page in pages)
        assert memory.forget(page_id="given-0") == 1
        left = [page for page in pages if page.user_id != "bo" and page.page_id != "given-0"]
        assert memory.add("ada", "once more", "", page_id="given-30") == "given-30"  # known: the first one stays
        memory.add("dee", *page_text(PAGES))
        memory.wait_idle(PATIENCE_S)
        assert all_pages(memory)[:-1] == left
        memory.compact(PATIENCE_S)
        pages = all_pages(memory)
        assert pages[:-1] == left
        check_consistent(memory)
        assert memory.verify().ok
        before = placed(memory)
    with open_fake(root) as memory:
        memory.wait_idle(PATIENCE_S)
        assert all_pages(memory) == pages
        assert placed(memory) == before
        check_found(memory, pages)
        assert memory.verify().ok
