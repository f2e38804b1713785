"""Ways on which a forgotten page's words could stay, one test each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline
from tests.faults.common import PATIENCE_S
from tests.support import all_pages, open_fake
from tests.test_forget import SETTINGS, fill, on_disk, tell_secret, told


def test_compaction_takes_what_was_forgotten_before_the_store_was_opened(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 10)
        page_id = tell_secret(memory)
        memory.wait_idle(PATIENCE_S)
        memory.forget(page_id=page_id)
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        pages = all_pages(memory)
        memory.compact(PATIENCE_S)
        assert all_pages(memory) == pages
    assert not on_disk(tmp_path)


# A session for each batch of two pages, and one chain.
APART: dict[str, Any] = {
    "short_term__capacity": 2,
    "mid_term__similarity_threshold": 2.0,
    "llm__continuity_threshold": -1.0,
}


def test_a_session_does_not_quote_pages_of_another(tmp_path: Path) -> None:
    """Pages that are worked on again come beside some that have kept their session."""
    with open_fake(tmp_path, **SETTINGS | APART) as memory:
        first = memory.add("tom", "The beagle sleeps.", "On the red sofa.")
        memory.add("tom", "Rain falls.", "Nobody minds.")
        secret = tell_secret(memory)
        memory.add("tom", "Bread bakes slowly.", "It smells good.")
        memory.wait_idle(PATIENCE_S)
        assert len(memory.sessions("tom")) == 2
        memory.forget(page_id=first)
        memory.wait_idle(PATIENCE_S)
        memory.forget(page_id=secret)
        memory.wait_idle(PATIENCE_S)
        assert not told(memory)
        placed = sorted(page_id for session in memory.sessions("tom") for page_id in session.page_ids)
        assert placed == [page.page_id for page in all_pages(memory)]


def test_an_overview_does_not_quote_pages_whose_session_had_to_go(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS | APART, mid_term__capacity=1) as memory:
        secrets = [tell_secret(memory) for _ in range(2)]
        memory.add("tom", "Bread bakes slowly.", "")
        memory.add("tom", "What lies hidden under the old bridge, a statue?", "")
        memory.wait_idle(PATIENCE_S)
        assert len(memory.sessions("tom")) == 1
        for page_id in secrets:
            memory.forget(page_id=page_id)
        memory.wait_idle(PATIENCE_S)
        assert not told(memory)


ALONE = ("I have a beagle named Rex", "I play the violin on mondays", "I live near Lake Garda", "I own four bicycles")


@pytest.mark.parametrize("reopened", [False, True])
def test_a_profile_is_made_again_where_no_page_is_left_to_work_on(tmp_path: Path, reopened: bool) -> None:
    settings: dict[str, Any] = {
        "short_term__capacity": 1,
        "mid_term__heat_threshold": 1.0,
        "long_term__promotion_pages": 4,
    }
    settings |= {"llm__continuity_threshold": 1.0}  # each page is a session and a chain by itself
    with open_fake(tmp_path, **SETTINGS | settings) as memory:
        memory.add("tom", "I work at the harbour.", "")
        memory.wait_idle(PATIENCE_S)  # the first promotion takes this one
        page_ids = [memory.add("tom", f"{said}.", "") for said in ALONE]
        memory.wait_idle(PATIENCE_S)
        assert said_in_profile(memory) == [True] * 4
        if not reopened:
            memory.forget(page_id=page_ids[1])
            memory.wait_idle(PATIENCE_S)
            assert said_in_profile(memory) == [True, False, True, True]
    with open_fake(tmp_path, **SETTINGS | settings, workers=False) as memory:
        assert memory.forget(page_id=page_ids[1]) == reopened
    with open_fake(tmp_path, **SETTINGS | settings) as memory:
        memory.wait_idle(PATIENCE_S)
        assert said_in_profile(memory) == [True, False, True, True]


def said_in_profile(memory: MemoryPipeline) -> list[bool]:
    return [said in memory.profile("tom").text for said in ALONE]
