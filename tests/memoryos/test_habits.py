"""What programs written for the original do besides: odd arguments, and the parts that they reach into."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import InputError, Memoryos, StoreLockedError
from mos_pipeline.memoryos import parts, shared
from tests.faults.common import PATIENCE_S
from tests.legacy.common import migrate, tom
from tests.memoryos.test_facade import BEAGLE, GHENT, fill, opened


@pytest.fixture
def memo(tmp_path: Path) -> Iterator[Memoryos]:
    with opened(tmp_path / "data", model=lambda _, __: "Rex.") as memo:
        yield memo


def test_an_empty_timestamp_is_the_present(memo: Memoryos) -> None:
    memo.add_memory("a", "b", "")
    (page,) = memo.short_term_memory.get_all()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", page["timestamp"])


def test_an_answer_that_is_none_is_no_answer(memo: Memoryos) -> None:
    memo.add_memory("a", None)
    assert memo.short_term_memory.get_all()[0]["agent_response"] == ""
    with pytest.raises(InputError, match="user_input must be a string"):
        memo.add_memory(None, "b")  # type: ignore[arg-type]  # the original failed here, too


def test_meta_data_that_can_not_be_stored_are_kept_as_text(memo: Memoryos) -> None:
    moment = datetime(2026, 3, 1, 10, tzinfo=UTC)
    given: dict[Any, Any] = {"at": moment, "tags": [moment, 1], 7: "seven", "fine": {"n": 1}, "set": {1}}
    kept = {"at": str(moment), "tags": [str(moment), 1], "7": "seven", "fine": {"n": 1}, "set": "{1}"}
    memo.add_memory("a", "b", None, given)
    assert memo.get_response("who?", "friend", "", given) == "Rex."
    assert [page["meta_data"] for page in memo.short_term_memory.get_all()] == [kept, kept]
    nothing: list[Any] = [{}, None, [], ""]
    for empty in nothing:
        memo.add_memory("a", "b", None, empty)
        assert "meta_data" not in memo.short_term_memory.get_all()[-1]
    around: dict[str, Any] = {}
    around["self"] = around
    memo.add_memory("a", "b", None, around)
    assert memo.short_term_memory.get_all()[-1]["meta_data"] == {"self": str(around)}
    with pytest.raises(InputError, match="mapping"):
        memo.add_memory("a", "b", None, "a text")  # type: ignore[arg-type]


def test_style_and_relationship_may_be_none(memo: Memoryos) -> None:
    assert memo.get_response("who?", None, None) == "Rex."
    assert memo.get_response("who?", relationship_with_user="", style_hint="") == "Rex."


def test_what_is_retrieved_is_this_objects_whatever_user_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as tom, opened(tmp_path, "ann") as ann:
        tom.add_memory("My beagle is Rex.", "b")
        ann.add_memory("My beagle is Bella.", "b")
        for named in ("tom", "ann", "somebody", None):
            found = ann.retriever.retrieve_context("which beagle?", named)["retrieved_pages"]
            assert [page["user_input"] for page in found] == ["My beagle is Bella."]


def test_knowledge_that_is_retrieved_has_its_vector(tmp_path: Path) -> None:
    with opened(tmp_path) as tom, opened(tmp_path, "ann") as ann:
        fill(tom)
        ann.add_memory("hello", "hi")
        tom.force_mid_term_analysis(PATIENCE_S)
        for memo in (tom, ann):
            found = memo.retriever.retrieve_context(f"{BEAGLE} {GHENT}", "")
            facts = found["retrieved_user_knowledge"] + found["retrieved_assistant_knowledge"]
            assert GHENT in [fact["knowledge"] for fact in facts]
            for fact in facts:
                assert list(fact) == ["knowledge", "timestamp", "knowledge_embedding"]
                assert len(fact["knowledge_embedding"]) == 384
        assert (
            tom.user_long_term_memory.get_user_knowledge()[0]
            in (tom.retriever.retrieve_context(BEAGLE, "tom")["retrieved_user_knowledge"])
        )


def test_what_programs_read_is_there(memo: Memoryos) -> None:
    assert memo.mid_term_memory.heap == []
    fill(memo)
    memo.force_mid_term_analysis(PATIENCE_S)
    sessions = memo.mid_term_memory.sessions
    heap = memo.mid_term_memory.heap
    assert sorted(key for _, key in heap) == sorted(sessions)
    assert heap == sorted(heap)
    assert -heap[0][0] == pytest.approx(max(one["H_segment"] for one in sessions.values()), abs=1e-3)
    page = next(iter(sessions.values()))["details"][0]
    assert memo.mid_term_memory.get_page_by_id(page["page_id"]) == page
    assert memo.mid_term_memory.get_page_by_id("no such page") is None
    assert memo.mid_term_memory.max_capacity == 2000
    assert memo.user_long_term_memory.knowledge_capacity == 100
    profile = memo.user_long_term_memory.get_user_profile_data("tom")
    assert profile["data"] == memo.get_user_profile_summary()
    assert memo.user_long_term_memory.get_user_profile_data("ann") == {}
    assert (memo.llm_model, memo.mid_term_heat_threshold, memo.mid_term_similarity_threshold) == ("gpt-4o-mini", 5, 0.6)
    with pytest.raises(AttributeError):
        memo.mid_term_heat_threshold = 0.0  # type: ignore[misc]


def test_a_page_of_another_user_is_not_shown(tmp_path: Path) -> None:
    with opened(tmp_path) as tom, opened(tmp_path, "ann") as ann:
        tom.add_memory("a", "b")
        (page,) = tom.pipeline.pages("tom")
        assert ann.mid_term_memory.get_page_by_id(page.page_id) is None


def test_what_is_not_there_says_what_is(memo: Memoryos) -> None:
    for part, name in (
        (memo, "client"),
        (memo, "updater"),
        (memo.short_term_memory, "add_qa_pair"),
        (memo.mid_term_memory, "search_sessions"),
        (memo.user_long_term_memory, "add_user_knowledge"),
        (memo.user_long_term_memory, "search_user_knowledge"),
    ):
        with pytest.raises(AttributeError, match=rf"\.{name} of the original is not here: "):
            getattr(part, name)
        assert not hasattr(part, name)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = memo.nonsense  # type: ignore[attr-defined]
    assert set(parts.GONE) & set(dir(Memoryos)) == set()


def test_fields_that_came_from_the_original_are_where_they_were(tmp_path: Path) -> None:
    store = tmp_path / "store"
    migrate(tom(tmp_path / "legacy"), store, assistant="mia")
    with opened(store, "tom", assistant_id="mia") as memo:
        pages = [page for one in memo.mid_term_memory.sessions.values() for page in one["details"]]
        assert [page["page_keywords"] for page in pages if page["user_input"].startswith("question 3 ")] == [["kept"]]
        assert not [page for page in pages if "meta_data" in page]


def test_two_processes_are_told_what_to_do(memo: Memoryos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_open", {})  # as in a process that knows nothing of this one
    with pytest.raises(StoreLockedError, match=r"read_only=True") as caught:
        opened(Path(memo.data_storage_path), "ann")
    assert caught.value.pid is not None
