"""Memory of the original, moved into a store: what is there then, and stays through everything that a store does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.engine.reader import ReaderEngine
from mos_pipeline.errors import BackpressureError
from mos_pipeline.memory.session import Session
from mos_pipeline.migration import MigrationStore
from tests.cli.common import until
from tests.legacy.common import (
    ASSISTANT,
    fact,
    long_term,
    memory_of,
    mid_page,
    mid_term,
    migrate,
    put,
    session,
    short_page,
    tom,
    vector,
)
from tests.support import open_fake

SCOPE: dict[str, Any] = {"assistant_id": ASSISTANT}


def sessions_of(store: Path, user_id: str = "tom", assistant_id: str = ASSISTANT) -> dict[str, Session]:
    """Return a store's sessions as they are kept, by their summaries."""
    with open_fake(store, workers=False) as memory:
        memory._engine.restored.wait(60)
        scope = memory._engine.state.find(user_id, assistant_id)
        assert scope is not None
        return {one.summary: one for one in scope.mid_term.sessions}


def digest(root: Path) -> dict[str, str]:
    """Return what a folder's files hold, and when they were written."""
    return {
        str(path): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_everything_is_there(tmp_path: Path, *, zipped: bool) -> None:
    legacy = tom(tmp_path / "legacy", zipped=zipped)
    before = digest(legacy)
    report = migrate(legacy, tmp_path / "store")
    assert digest(legacy) == before
    counts = {name: value for name, value in report.as_dict().items() if value}
    assert counts == {
        "users": 1,
        "assistants": 1,
        "pages_mid": 6,
        "pages_short": 2,
        "pages_accepted": 8,
        "sessions": 2,
        "links": 2,
        "profiles": 1,
        "facts_user": 2,
        "facts_assistant": 1,
        "reused": 11,
    }
    with open_fake(tmp_path / "store") as memory:
        pages = memory.pages("tom", **SCOPE)
        numbers = [0, 1, 2, 3, 4, 5, 20, 21]
        expected = [short_page(number) for number in numbers]
        assert [
            {name: getattr(page, name) for name in ("user_input", "agent_response", "timestamp")} for page in pages
        ] == expected
        assert [page.page_id for page in pages[:6]] == [f"page_{number:08x}" for number in range(6)]
        assert pages[3].metadata == {"memoryos": {"page_keywords": ["kept"]}}
        profile = memory.profile("tom", **SCOPE)
        assert (profile.text, profile.updated) == (
            "Openness (High): tries new things, likes tea and walks.",
            "2026-02-04 10:00:00",
        )
        found = memory.knowledge("tom", **SCOPE)
        assert [(one.text, one.timestamp) for one in found] == [
            ("tom likes tea", "2026-02-03 10:00:00"),
            ("tom has a dog named Rex", "2026-02-03 11:00:00"),
        ]
        told = memory.knowledge("tom", about="assistant", **SCOPE)
        assert [one.text for one in told] == ["the assistant recommended a book"]
        hits = memory.retrieve("tom", "question 1 about thing1", k=3, timeout=60, **SCOPE)
        assert hits.pages[0].page.page_id == "page_00000001"
        assert hits.pages[0].dense is not None and hits.pages[0].dense > 0.5
        assert hits.pages[0].overview == "of things and more"
        asked = memory.retrieve("tom", "a dog named Rex", timeout=60, **SCOPE)
        assert asked.user_knowledge[0].fact.text == "tom has a dog named Rex"
        assert [page.page_id for page in asked.short_term][-2:] == [page.page_id for page in pages[6:]]


def test_heat_and_analysed_pages_are_kept(tmp_path: Path) -> None:
    migrate(tom(tmp_path / "legacy"), tmp_path / "store")
    found = sessions_of(tmp_path / "store")
    a, b = found["summary of session_a"], found["summary of session_b"]
    assert (a.visits, a.interactions, a.accesses, a.seqs.tolist(), a.fresh.tolist()) == (2, 1, 5, [0, 1, 4], [4])
    assert (b.visits, b.interactions, b.accesses, b.seqs.tolist(), b.fresh.tolist()) == (1, 1, 1, [2, 3, 5], [5])
    assert round(b.last_visit - a.last_visit) == (2 * 24 + 13) * 3600 + 39 * 60 + 30
    assert a.timestamp == "2026-02-01 10:00:00"
    assert a.keywords == {"session_a word", "shared"}


def test_vectors_that_came_along_are_the_stores_own(tmp_path: Path) -> None:
    migrate(tom(tmp_path / "legacy"), tmp_path / "store")
    with open_fake(tmp_path / "store", workers=False) as memory:
        engine = memory._engine
        engine.restored.wait(60)
        scope = engine.state.find("tom", ASSISTANT)
        assert scope is not None
        for one in scope.mid_term.sessions:
            there = engine.embedding.pool.read([one.row])[0]
            assert np.array_equal(there, np.array(vector(one.summary)).astype(np.float16))


def shifted(text: str) -> list[float]:
    """Return a vector of length 1 as another model might make it."""
    return vector(text)[::-1]


def of_other_model(legacy: Path, change: Any) -> Path:
    """Write a folder of one user whose vectors are what ``change`` makes of their texts."""
    page = short_page(1)
    text = f"User: {page['user_input']} Assistant: {page['agent_response']}"
    pages = [mid_page(1, page_embedding=change(text))]
    put(legacy, "users/tom/mid_term.json", mid_term(session("s", pages, summary_embedding=change("summary of s"))))
    facts = [{**fact("tom likes tea"), "knowledge_embedding": change("tom likes tea")}]
    put(legacy, "users/tom/long_term_user.json", long_term("tom", facts=facts))
    return legacy


def shorter(text: str) -> list[float]:
    """Return a vector of another dimension, of length 1."""
    first = np.array(vector(text)[:100])
    numbers: list[float] = (first / np.linalg.norm(first)).tolist()
    return numbers


@pytest.mark.parametrize("change", [shifted, shorter])
def test_vectors_of_another_model_are_made_again(tmp_path: Path, change: Any) -> None:
    report = migrate(of_other_model(tmp_path / "legacy", change), tmp_path / "store")
    assert (report.reused, report.made, report.set_aside) == (0, 3, [])
    with open_fake(tmp_path / "store") as memory:
        memory.wait_idle(60)
        assert memory.stats().backlog_pages == 0
        found = memory.retrieve("tom", "tom likes tea", timeout=60, **SCOPE)
        assert found.user_knowledge[0].score == pytest.approx(1.0, abs=0.01)
        hit = memory.retrieve("tom", "User: question 1 about thing1 Assistant: answer 1", timeout=60, **SCOPE).pages[0]
        assert hit.dense == pytest.approx(1.0, abs=0.01)


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    legacy, store = tom(tmp_path / "legacy"), tmp_path / "store"
    migrate(legacy, store)
    with open_fake(store) as memory:
        before = memory_of(memory)
        memory.forget(page_id="page_00000002")
        memory.wait_idle(60)
        forgotten = memory_of(memory)
    assert len(forgotten["pages"]) == len(before["pages"]) - 1
    report = migrate(legacy, store)
    assert (report.already_there, report.pages_accepted) == (1, 0)
    with open_fake(store) as memory:
        assert memory_of(memory) == forgotten


@pytest.mark.parametrize("compacted", [False, True])
def test_forgetting_a_page_takes_all_that_may_tell_of_it(tmp_path: Path, *, compacted: bool) -> None:
    store = tmp_path / "store"
    migrate(tom(tmp_path / "legacy"), store)
    with open_fake(store) as memory:
        memory.forget(page_id="page_00000001")
        assert memory.knowledge("tom", **SCOPE) == []
        assert memory.knowledge("tom", about="assistant", **SCOPE) == []
        assert "likes tea" not in memory.profile("tom", **SCOPE).text
        memory.wait_idle(60)
        if compacted:
            memory.compact(60)
        summaries = {one.summary for one in memory.sessions("tom", **SCOPE)}
        assert "summary of session_a" not in summaries
        assert "summary of session_b" in summaries
        placed = {page_id for one in memory.sessions("tom", **SCOPE) for page_id in one.page_ids}
        assert {"page_00000000", "page_00000004"} <= placed
        after = memory_of(memory)
    with open_fake(store) as memory:
        assert memory_of(memory) == after
        assert memory.verify().ok
    held = b"".join(path.read_bytes() for path in (store / "segments").iterdir())
    assert held


def test_a_fact_stays_while_no_page_it_may_come_from_is_forgotten(tmp_path: Path) -> None:
    store = tmp_path / "store"
    migrate(tom(tmp_path / "legacy"), store)
    with open_fake(store) as memory:
        last = memory.pages("tom", **SCOPE)[-1]
        memory.forget(page_id=last.page_id)  # of short-term memory: nothing was made of it
        memory.forget(page_id="page_00000005")  # not analysed
        assert len(memory.knowledge("tom", **SCOPE)) == 2
        memory.forget("tom")
        assert memory.knowledge("tom", **SCOPE) == []
        assert memory.profile("tom", **SCOPE).text == ""


def test_it_stays_through_compaction_and_reopening_and_readers_see_it(tmp_path: Path) -> None:
    store = tmp_path / "store"
    migrate(tom(tmp_path / "legacy"), store)
    with open_fake(store) as memory:
        before = memory_of(memory)
        with MemoryPipeline.open(store, read_only=True, workers=False) as reader:
            assert memory_of(reader) == before
        memory.compact(60)
        assert memory_of(memory) == before
        memory.add("tom", "one more", "page", **SCOPE)
        memory.wait_idle(60)
    with open_fake(store) as memory:
        after = memory_of(memory)
        assert after["sessions"] == before["sessions"]
        assert after["facts"] == before["facts"]
        assert memory.verify().ok


def test_a_reader_sees_it_when_it_looks_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with open_fake(store) as memory:
        memory.add("ann", "hello", "hi")
        memory.wait_idle(60)
    reader = MemoryPipeline.open(store, read_only=True, workers=False)
    with reader:
        migrate(tom(tmp_path / "legacy"), store)
        reader.refresh()
        assert len(reader.sessions("tom", **SCOPE)) == 2
        assert len(reader.knowledge("tom", **SCOPE)) == 2
        assert isinstance(reader._opened, ReaderEngine)


def test_pages_that_were_worked_on_before_get_the_memory_all_the_same(tmp_path: Path) -> None:
    """As where it was killed, and the store opened by somebody else before it was run again."""
    whole, store = tmp_path / "whole", tmp_path / "store"
    legacy = tom(tmp_path / "legacy")
    migrate(legacy, whole)
    with open_fake(whole) as memory:
        expected = memory_of(memory)
    with open_fake(store, short_term__capacity=2) as memory:
        for page in expected["pages"][:5]:
            memory.add(**page)
        memory.wait_idle(60)
        assert memory.sessions("tom", **SCOPE)
    migrate(legacy, store)
    with open_fake(store) as memory:
        assert memory_of(memory) == expected


def test_a_folder_that_has_grown_is_taken_over_in_place_of_what_it_was(tmp_path: Path) -> None:
    legacy, store = tmp_path / "legacy", tmp_path / "store"
    put(legacy, "users/tom/short_term.json", [short_page(1), short_page(2), short_page(2)])
    put(legacy, "users/tom/mid_term.json", mid_term(session("a", [mid_page(0)])))
    migrate(legacy, store)
    put(legacy, "users/tom/short_term.json", [short_page(2), short_page(3)])
    put(legacy, "users/tom/mid_term.json", mid_term(session("b", [mid_page(0), mid_page(1), mid_page(2)])))
    report = migrate(legacy, store)
    assert (report.pages_accepted, report.pages_mid, report.pages_short) == (1, 3, 1)  # the 2 of both is one
    with open_fake(store) as memory:
        said = [page.user_input.split()[1] for page in memory.pages("tom", **SCOPE)]
        assert said == ["0", "1", "2", "2", "3"]
        assert [(one.summary, len(one.page_ids)) for one in memory.sessions("tom", **SCOPE)] == [("summary of b", 3)]


def test_pages_wait_for_their_memory_while_others_are_worked_on(tmp_path: Path) -> None:
    with MigrationStore.begin(tmp_path / "store", {"embedding": {"backend": "fake"}}, [("tom", ASSISTANT)]) as store:
        for user in ("tom", "ann"):
            for number in range(9):
                store.add(user, f"question {number}", f"answer {number}", **SCOPE)
        until(lambda: store.sessions("ann", **SCOPE), "a batch of ann's is applied")
        assert store.sessions("tom", **SCOPE) == []
        assert store.stats().backlog_pages == 9
        store.release("tom", ASSISTANT)
        store.wait_idle(60)
        assert store.sessions("tom", **SCOPE)


def test_a_page_in_two_sessions_takes_both_with_it(tmp_path: Path) -> None:
    legacy, store = tmp_path / "legacy", tmp_path / "store"
    both = mid_page(1)
    sessions = session("a", [mid_page(0), both]), session("b", [both, mid_page(2)]), session("c", [mid_page(3)])
    put(legacy, "users/tom/mid_term.json", mid_term(*sessions))
    assert migrate(legacy, store).pages_mid == 4
    with open_fake(store) as memory:
        assert sorted(len(one.page_ids) for one in memory.sessions("tom", **SCOPE)) == [1, 1, 2]
        memory.compact(60)
    with open_fake(store) as memory:
        memory.forget(page_id="page_00000001")
        assert [one.summary for one in memory.sessions("tom", **SCOPE)] == ["summary of c"]
        memory.wait_idle(60)
    with open_fake(store) as memory:
        memory.wait_idle(60)
        summaries = [one.summary for one in memory.sessions("tom", **SCOPE)]
        assert "summary of c" in summaries
        assert not {"summary of a", "summary of b"}.intersection(summaries)
        placed = {page_id for one in memory.sessions("tom", **SCOPE) for page_id in one.page_ids}
        assert placed == {"page_00000000", "page_00000002", "page_00000003"}


def test_a_store_that_knows_the_user_keeps_what_it_has(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with open_fake(store, short_term__capacity=2) as memory:
        for number in range(3):
            memory.add("tom", f"before {number}", "answered", page_id=f"before {number}", **SCOPE)
        memory.wait_idle(60)
        before = memory_of(memory)
    migrate(tom(tmp_path / "legacy"), store, short_term__capacity=2)
    with open_fake(store, short_term__capacity=2) as memory:
        memory.wait_idle(60)
        after = memory_of(memory)
    assert after["pages"][:3] == before["pages"]
    summaries = [[one[0] for one in found["sessions"]] for found in (before, after)]
    assert {*summaries[0], "summary of session_a", "summary of session_b"} <= set(summaries[1])
    placed = [page_id for one in after["sessions"] for page_id in one[4:]]
    assert sorted(placed) == sorted(page["page_id"] for page in after["pages"])  # each in one, those of both, too


def test_more_pages_of_a_user_than_the_backlog_takes_are_told_and_not_waited_for(tmp_path: Path) -> None:
    legacy, store = tmp_path / "legacy", tmp_path / "store"
    pages = [mid_page(number, user_input=f"{number} {'x' * 1000}") for number in range(100)]
    put(legacy, "users/tom/mid_term.json", mid_term(session("a", pages)))
    with pytest.raises(BackpressureError, match=r"users/tom: .*backlog\.max_bytes"):
        migrate(legacy, store, backlog__max_bytes=50_000)
    report = migrate(legacy, store)
    with open_fake(store) as memory:
        assert (report.pages_mid, len(memory.pages("tom", **SCOPE))) == (100, 100)
        assert [len(one.page_ids) for one in memory.sessions("tom", **SCOPE)] == [100]


def test_an_id_that_another_user_has_does_not_cost_the_page(tmp_path: Path) -> None:
    legacy, store = tmp_path / "legacy", tmp_path / "store"
    for user in ("ann", "bob"):
        put(legacy, f"users/{user}/mid_term.json", mid_term(session("a", [mid_page(0), mid_page(1)])))
    for _ in range(2):
        assert migrate(legacy, store).set_aside == []
        with open_fake(store, workers=False) as memory:
            assert [page.page_id for page in memory.pages("ann", **SCOPE)] == ["page_00000000", "page_00000001"]
            assert len(memory.pages("bob", **SCOPE)) == 2
            assert [len(one.page_ids) for one in memory.sessions("bob", **SCOPE)] == [2]


def test_what_an_assistant_said_goes_to_one_user_alone(tmp_path: Path) -> None:
    legacy = tom(tmp_path / "legacy")
    put(legacy, "users/ann/short_term.json", [short_page(1)])
    report = migrate(legacy, tmp_path / "private")
    (problem,) = report.set_aside
    assert problem.file == f"assistants/{ASSISTANT}"
    assert "long_term.share_assistant_knowledge" in problem.reason
    report = migrate(legacy, tmp_path / "shared", long_term__share_assistant_knowledge=True)
    assert (report.set_aside, report.facts_assistant) == ([], 1)
    with open_fake(tmp_path / "shared", long_term__share_assistant_knowledge=True) as memory:
        for user in ("ann", "tom"):
            found = memory.retrieve(user, "recommended a book", timeout=60, **SCOPE).assistant_knowledge
            assert [hit.fact.text for hit in found] == ["the assistant recommended a book"]


def test_other_assistants_are_named(tmp_path: Path) -> None:
    legacy = tom(tmp_path / "legacy")
    put(legacy, "assistants/max/long_term_assistant.json", long_term(told=[fact("I am max")]))
    report = migrate(legacy, tmp_path / "store")
    assert [problem.file for problem in report.set_aside] == ["assistants/max"]


def test_more_than_there_is_room_for_is_named(tmp_path: Path) -> None:
    legacy = tom(tmp_path / "legacy")
    report = migrate(legacy, tmp_path / "store", mid_term__capacity=1, long_term__knowledge_capacity=1)
    assert ["mid_term.capacity" in one.reason for one in report.set_aside] == [True, False]
    assert "long_term.knowledge_capacity" in report.set_aside[1].reason
    assert list(sessions_of(tmp_path / "store")) == ["summary of session_a"]
    again = migrate(legacy, tmp_path / "store", mid_term__capacity=1, long_term__knowledge_capacity=1)
    assert (again.already_there, again.set_aside) == (1, report.set_aside)
    roomy = migrate(legacy, tmp_path / "store")
    assert (roomy.already_there, roomy.pages_accepted, roomy.set_aside) == (0, 0, [])
    assert sorted(sessions_of(tmp_path / "store")) == ["summary of session_a", "summary of session_b"]


def test_a_page_that_is_too_large_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    legacy = tmp_path / "legacy"
    large = mid_page(1, user_input="x" * 5000)
    put(legacy, "users/tom/mid_term.json", mid_term(session("a", [mid_page(0), large, mid_page(2)])))
    report = migrate(legacy, tmp_path / "store", store__max_page_bytes=4096)
    (problem,) = report.set_aside
    assert (problem.file, problem.field) == ("users/tom/mid_term.json", "sessions.a.details[1]")
    assert report.pages_accepted == 2
    assert migrate(legacy, tmp_path / "store", store__max_page_bytes=4096).set_aside == [problem]
    assert migrate(legacy, tmp_path / "store").pages_accepted == 1
