"""Two users, and two assistants of one, with the same texts: whatever is asked, nobody gets what is the other's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline, Retrieved
from mos_pipeline.pipeline import DEFAULT_ASSISTANT
from tests.faults.common import PATIENCE_S
from tests.support import open_fake

SETTINGS: dict[str, Any] = {
    "short_term__capacity": 3,
    "mid_term__heat_threshold": 3.0,
    "long_term__promotion_pages": 3,
    "store__frame_pages": 4,
    "retrieval__timeout_s": PATIENCE_S,
}
# Names that would collide where they were joined, cut, folded or taken for paths.
SCOPES = [
    ("tom", DEFAULT_ASSISTANT),
    ("tom", "coach"),
    ("tom\0coach", "x"),
    ("TOM", DEFAULT_ASSISTANT),
    ("tom/../tom", "coach"),
]
TEXTS = [
    ("I have a beagle named Rex.", "I love long walks with dogs."),
    ("I play the violin on mondays.", "I prefer slow music."),
    ("I live near Lake Garda with my sister.", "I am a travel assistant."),
]
QUERY = "beagle violin lake walks music assistant"
PAGES = 9


def number_of(scope: tuple[str, str]) -> int:
    return SCOPES.index(scope)


def fill(memory: MemoryPipeline) -> None:
    for number in range(PAGES):
        for place, (user, assistant) in enumerate(SCOPES):
            said, answer = TEXTS[number % len(TEXTS)]
            metadata = {"whose": place}
            memory.add(user, said, answer, assistant_id=assistant, page_id=f"{place}:{number}", metadata=metadata)
    memory.wait_idle(PATIENCE_S)


def wishes() -> list[dict[str, Any]]:
    others = [{"k": 1000, "where": {"whose": place}} for place in range(len(SCOPES))]
    return [{"k": 1000}, {"k": 2}, {"max_tokens": 500}, {"k": 1000, "order": "time", "explain": True}, *others]


def own(place: int, page_ids: list[str]) -> bool:
    return all(page_id.startswith(f"{place}:") for page_id in page_ids)


def check_answer(place: int, found: Retrieved, *, shared: bool) -> None:
    assert own(place, [hit.page.page_id for hit in found.pages])
    assert own(place, [page.page_id for page in found.short_term])
    for hit in found.user_knowledge:
        assert hit.fact.page_ids
        assert own(place, list(hit.fact.page_ids))
    for hit in found.assistant_knowledge:
        assert own(place, list(hit.fact.page_ids))
        assert hit.fact.page_ids or shared


def check(memory: MemoryPipeline, *, shared: bool, left: int = PAGES) -> None:
    for scope in SCOPES:
        place, (user, assistant) = number_of(scope), scope
        for wish in wishes():
            found = memory.retrieve(user, QUERY, assistant_id=assistant, **wish)
            check_answer(place, found, shared=shared)
            if wish.get("where", {"whose": place}) != {"whose": place}:
                assert not found.pages
        assert len(memory.retrieve(user, QUERY, assistant_id=assistant, k=1000).pages) == left
        assert own(place, [page.page_id for page in memory.pages(user, assistant_id=assistant)])
        sessions = memory.sessions(user, assistant_id=assistant)
        assert own(place, [page_id for one in sessions for page_id in one.page_ids])
        for about in ("user", "assistant"):
            facts = memory.knowledge(user, assistant_id=assistant, about=about)
            assert all(fact.page_ids and own(place, list(fact.page_ids)) for fact in facts)


@pytest.mark.parametrize("method", ["joined", "two-level"])
@pytest.mark.parametrize("shared", [False, True])
def test_nobody_gets_what_is_the_others(tmp_path: Path, method: str, shared: bool) -> None:
    settings = {"retrieval__method": method, "long_term__share_assistant_knowledge": shared}
    with open_fake(tmp_path, **SETTINGS | settings) as memory:
        fill(memory)
        if method == "joined":
            check(memory, shared=shared)
        assert memory.profile("tom").text
        for place in range(len(SCOPES)):  # somebody else's page is nobody's business, but its id names it
            assert memory.forget(page_id=f"{place}:0") == 1
        memory.wait_idle(PATIENCE_S)
        memory.compact(PATIENCE_S)
    with open_fake(tmp_path, **SETTINGS | settings) as memory:
        memory.wait_idle(PATIENCE_S)
        if method == "joined":
            check(memory, shared=shared, left=PAGES - 1)
        for place, (user, assistant) in enumerate(SCOPES):
            found = memory.retrieve(user, QUERY, assistant_id=assistant, k=1000)
            check_answer(place, found, shared=shared)
    with open_fake(tmp_path, workers=False, **SETTINGS | settings) as memory:
        for place, (user, assistant) in enumerate(SCOPES):
            found = memory.retrieve(user, QUERY, assistant_id=assistant, k=1000)
            assert found.degraded
            check_answer(place, found, shared=shared)


@pytest.mark.parametrize("shared", [False, True])
def test_what_an_assistant_said_crosses_users_only_where_it_may(tmp_path: Path, shared: bool) -> None:
    with open_fake(tmp_path, **SETTINGS, long_term__share_assistant_knowledge=shared) as memory:
        for number in range(6):
            memory.add("tom", f"What about number {number}?", "I am a travel guide from Alpha Centauri.")
            memory.add("ann", f"I own {number + 2} bicycles.", "Fine.")
            memory.add("ann", f"I own {number + 2} bicycles.", "Fine.", assistant_id="coach")
        memory.wait_idle(PATIENCE_S)
        assert memory.knowledge("tom", about="assistant")
        assert not memory.knowledge("ann", about="assistant")
        crossed = memory.retrieve("ann", "travel guide from Alpha Centauri").assistant_knowledge
        assert [(hit.fact.text, hit.fact.page_ids) for hit in crossed] == (
            [("I am a travel guide from Alpha Centauri.", ())] if shared else []
        )
        other = memory.retrieve("ann", "travel guide from Alpha Centauri", assistant_id="coach")
        assert not other.assistant_knowledge
        assert not memory.retrieve("tom", "bicycles").user_knowledge
        memory.forget("tom")
        assert not memory.retrieve("ann", "travel guide from Alpha Centauri").assistant_knowledge


def test_forgetting_a_user_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory)
        kept = [scope for scope in SCOPES if scope[0] != "tom"]
        before = [
            (memory.pages(user, assistant_id=name), memory.profile(user, assistant_id=name)) for user, name in kept
        ]
        assert memory.forget("tom") == 2 * PAGES
        memory.wait_idle(PATIENCE_S)
        after = [
            (memory.pages(user, assistant_id=name), memory.profile(user, assistant_id=name)) for user, name in kept
        ]
        assert after == before
        assert not memory.retrieve("tom", QUERY).pages
        assert not memory.profile("tom").text
