"""Long-term memory through the library's face: profile, knowledge, heat, visits, eviction, and all of it kept."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import InputError, MemoryPipeline
from mos_pipeline.engine.events import Promoted, decode_events
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.memory.state import Scope
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.reading import PageReader
from tests.faults.common import PATIENCE_S, frames_of, until
from tests.support import all_pages, open_fake, page_text

SETTINGS: dict[str, Any] = {
    "short_term__capacity": 3,
    "mid_term__heat_threshold": 3.0,
    "long_term__promotion_pages": 6,
    "store__frame_pages": 4,
    "retrieval__timeout_s": PATIENCE_S,
}
THINGS = [
    "beagle",
    "violin",
    "boat",
    "telescope",
    "bicycle",
    "garden",
    "camera",
    "drum",
    "kite",
    "sledge",
    "lamp",
    "piano",
]
ONE_TOPIC = {"mid_term__similarity_threshold": 0.0}
MANY_TOPICS = {"short_term__capacity": 1, "mid_term__similarity_threshold": 2.0, "llm__continuity_threshold": 1.0}


def tell(memory: MemoryPipeline, numbers: range, **fields: Any) -> list[str]:
    """Add pages with a statement each, and let them be worked off one batch after the other."""
    page_ids = []
    for number in numbers:
        stamp = f"2026-02-{number % 28 + 1:02} 10:00:00"
        page_ids.append(memory.add("tom", statement(number), "Well noted.", timestamp=stamp, **fields))
        if number % 3 == 2:
            memory.wait_idle(PATIENCE_S)
    memory.wait_idle(PATIENCE_S)
    return page_ids


def statement(number: int) -> str:
    return f"I have a {THINGS[number % len(THINGS)]} named mark{number:04}."


def memory_of(memory: MemoryPipeline) -> tuple[Any, ...]:
    """All of mid- and long-term memory but heat, which falls with time."""
    sessions = [(one.session_id, one.summary, one.keywords, one.visits, one.page_ids) for one in memory.sessions("tom")]
    return sorted(sessions), memory.knowledge("tom"), memory.knowledge("tom", about="assistant"), memory.profile("tom")


def promotions(path: Path) -> list[list[int]]:
    """The pages of each promotion that a closed store tells of."""
    events = [event for _, frame in frames_of(path, FrameKind.EVENTS) for event in decode_events(frame.body)]
    return [event.what.outcome.seqs for event in events if isinstance(event.what, Promoted)]


def test_facts_are_the_users_own_statements_with_their_time_and_page(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC) as memory:
        page_ids = tell(memory, range(24))
        said = {page.page_id: page for page in all_pages(memory, "tom")}
        facts = memory.knowledge("tom")
        assert len(facts) >= 6
        for fact in facts:
            assert fact.page_ids
            assert fact.text in {said[page_id].user_input for page_id in fact.page_ids}
            assert fact.timestamp == said[fact.page_ids[-1]].timestamp
        assert set(page_ids) >= {page_id for fact in facts for page_id in fact.page_ids}
        profile = memory.profile("tom")
        lines = [line for line in profile.text.splitlines() if line.startswith("- ")]
        assert lines
        assert all(line[2:].partition(" (")[0] in {page.user_input for page in said.values()} for line in lines)
        assert not memory.knowledge("tom", about="assistant")
        before = memory_of(memory)
        memory.compact(PATIENCE_S)
        assert memory_of(memory) == before
    with open_fake(tmp_path, workers=False, **SETTINGS | ONE_TOPIC) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        assert memory_of(memory) == before


def test_a_page_is_analysed_once_and_promotions_keep_their_distance(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC) as memory:
        tell(memory, range(30))
        (session,) = memory.sessions("tom")
        assert len(session.page_ids) == 30
    told = promotions(tmp_path)
    assert max(Counter(seq for seqs in told for seq in seqs).values()) == 1
    assert all(0 < len(seqs) <= 6 for seqs in told)
    assert 3 <= len(told) <= 1 + 30 // 6
    lasts = [max(seqs) for seqs in told]
    assert all(after - before >= 6 for before, after in pairwise(lasts))
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC) as memory:
        memory.wait_idle(PATIENCE_S)
    assert promotions(tmp_path) == told


def test_heat_falls_with_a_promotion_and_rises_with_visits_which_are_kept(tmp_path: Path) -> None:
    settings = SETTINGS | ONE_TOPIC
    with open_fake(tmp_path, **settings) as memory:
        tell(memory, range(3))
        (session,) = memory.sessions("tom")
        assert memory.profile("tom").text  # so it was promoted
        assert 0 < session.heat <= 1.0  # what is left is recency
        assert session.visits == 0
        memory.flush(timeout=PATIENCE_S)
        size = sum(path.stat().st_size for path in StoreFolder(tmp_path).segments.iterdir())
        for visits in range(1, 6):
            memory.retrieve("tom", "mark0001")
            until(lambda n=visits: memory.sessions("tom")[0].visits == n, "the visit is counted")  # type: ignore[misc]
            assert visits < memory.sessions("tom")[0].heat <= visits + 1.0
        assert sum(path.stat().st_size for path in StoreFolder(tmp_path).segments.iterdir()) == size
    with open_fake(tmp_path, **settings) as memory:
        memory.wait_idle(PATIENCE_S)
        (again,) = memory.sessions("tom")
        assert again.visits == 5
        assert 5 < again.heat <= 6.0
        memory.retrieve("tom", "nothing of that", where={"none": 1})  # finds nothing, visits nothing
        memory.wait_idle(PATIENCE_S)
        assert memory.sessions("tom")[0].visits == 5


def test_sessions_and_knowledge_are_shown_page_by_page(tmp_path: Path) -> None:
    settings = SETTINGS | MANY_TOPICS | {"mid_term__heat_threshold": 1.0, "long_term__facts_per_promotion": 6}
    with open_fake(tmp_path, **settings) as memory:
        tell(memory, range(12))
        sessions, facts, pages = memory.sessions("tom"), memory.knowledge("tom"), memory.pages("tom")
        assert (len(sessions), len(pages)) == (12, 12)
        assert len(facts) > 4
        for offset, limit in product((0, 1, 3, 11, 12, 50), (1, 2, 5, 100)):
            part = slice(offset, offset + limit)
            shown = [one.session_id for one in memory.sessions("tom", offset=offset, limit=limit)]
            assert shown == [one.session_id for one in sessions][part]
            assert memory.knowledge("tom", offset=offset, limit=limit) == facts[part]
            assert memory.pages("tom", offset=offset, limit=limit) == pages[part]
        for wrong in ({"offset": -1}, {"limit": 0}, {"offset": 1.5}, {"limit": True}):
            for browse in (memory.sessions, memory.knowledge, memory.pages):
                with pytest.raises(InputError, match=next(iter(wrong))):
                    browse("tom", **wrong)


def test_a_flush_takes_the_counts_of_visits_along(tmp_path: Path) -> None:
    with open_fake(tmp_path / "one", **SETTINGS | ONE_TOPIC) as memory:
        tell(memory, range(3))
        memory.retrieve("tom", "mark0001")
        until(lambda: memory.sessions("tom")[0].visits == 1, "the visit is counted")
        memory.flush(timeout=PATIENCE_S)
        until(lambda: memory.stats().unwritten == 0, "it is written")
        # What the disk holds at this moment.
        shutil.copytree(tmp_path / "one", tmp_path / "killed", ignore=shutil.ignore_patterns("SOCKET"))
    with open_fake(tmp_path / "killed", workers=False, **SETTINGS | ONE_TOPIC) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        assert memory.sessions("tom")[0].visits == 1


def test_a_profile_is_never_replaced_by_an_empty_or_a_short_one(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC) as memory:
        tell(memory, range(6))
        profile = memory.profile("tom")
        assert profile.text
        for number in range(12):  # nothing is told of the user any more
            memory.add("tom", *page_text(number))
        memory.wait_idle(PATIENCE_S)
        assert memory.profile("tom").text
        assert all(line in memory.profile("tom").text for line in profile.text.splitlines())


def test_knowledge_has_its_capacity_and_says_nothing_twice(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC, long_term__knowledge_capacity=4) as memory:
        for _ in range(2):
            tell(memory, range(3))
        for _ in range(3):
            memory.add("tom", statement(1).upper().replace("I HAVE A", "I have a"), "Again.")
        memory.wait_idle(PATIENCE_S)
        facts = memory.knowledge("tom")
        assert len({fact.text.casefold() for fact in facts}) == len(facts) == 3
        assert any(len(fact.page_ids) > 1 for fact in facts)
        tell(memory, range(6, 30))
        facts = memory.knowledge("tom")
        assert len(facts) == 4
        assert all(int(fact.text[-5:-1]) >= 6 for fact in facts)  # the oldest have gone
        before = memory_of(memory)
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC, long_term__knowledge_capacity=4) as memory:
        memory.wait_idle(PATIENCE_S)
        assert memory_of(memory) == before


@pytest.mark.parametrize("compacted", [False, True])
def test_the_session_that_was_found_least_goes_and_its_pages_stay(tmp_path: Path, compacted: bool) -> None:
    settings = SETTINGS | MANY_TOPICS | {"mid_term__capacity": 4, "mid_term__heat_threshold": 1000.0}
    with open_fake(tmp_path, **settings) as memory:
        page_ids = tell(memory, range(4))
        for number in (0, 2, 3, 0, 2, 3, 1):  # 1 last of all, and least
            memory.retrieve("tom", f"mark{number:04}", k=1)
        until(lambda: sum(one.visits for one in memory.sessions("tom")) == 7, "the visits are counted")
        page_ids += tell(memory, range(4, 5))
        placed = {page_id for one in memory.sessions("tom") for page_id in one.page_ids}
        assert placed == set(page_ids) - {page_ids[1]}
        pages = all_pages(memory)
        assert [page.page_id for page in pages] == page_ids
        assert memory.retrieve("tom", "mark0001", k=1).pages[0].page == pages[1]
        check_links(memory)
        memory.wait_idle(PATIENCE_S)
        if compacted:
            memory.compact(PATIENCE_S)
        before = memory_of(memory)
    with open_fake(tmp_path, **settings) as memory:
        memory.wait_idle(PATIENCE_S)
        assert memory_of(memory) == before
        assert all_pages(memory) == pages
        assert memory.retrieve("tom", "mark0001", k=1).pages[0].page == pages[1]
        check_links(memory)
        assert memory.stats().vectors == 5 + 4


def test_links_into_a_session_that_had_to_go_are_cut(tmp_path: Path) -> None:
    one_chain = {"llm__continuity_threshold": -1.0, "mid_term__capacity": 2, "mid_term__heat_threshold": 1000.0}
    with open_fake(tmp_path, **SETTINGS | MANY_TOPICS | one_chain) as memory:
        tell(memory, range(3))
        chains = memory._engine.state.chains
        (gone,) = {0, 1, 2} - {seq for one in memory._engine.state.scopes[0].mid_term.sessions for seq in one.seqs}
        assert chains.pages_of(chains.chain_of(gone)) == [gone]
        assert sorted(len(chains.pages_of(chains.chain_of(seq))) for seq in range(3)) in ([1, 2, 2], [1, 1, 1])


def check_links(memory: MemoryPipeline) -> None:
    """Check that the page whose session went is linked to none."""
    chains = memory._engine.state.chains
    assert (chains.before(1), chains.after(1)) == (-1, -1)


@pytest.mark.parametrize(("forgotten", "begun"), [(6, 1), (0, 2)])
def test_a_promotion_is_interrupted_where_it_may_tell_of_what_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: int, begun: int
) -> None:
    answers = list[tuple[Any, ...]]()
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC) as memory:
        engine, told = memory._engine, Promotion._told
        with monkeypatch.context() as patch:
            patch.setattr(Promotion, "_told", lambda *answer: answers.append(answer))
            page_ids = [memory.add("tom", statement(number), "Well noted.") for number in range(7)]
            until(lambda: sum(len(one.page_ids) for one in memory.sessions("tom")) == 6, "two batches")
            memory.forget(page_id=page_ids[forgotten])
            until(lambda: len(answers) == begun, "the answer of each promotion")
            with engine.coordinator.lock:
                for answer in answers:
                    told(*answer)
        memory.wait_idle(PATIENCE_S)
        facts = [fact.text for fact in memory.knowledge("tom")]
        assert statement(1) in facts
        assert (statement(0) in facts) == (forgotten != 0)
        assert memory.profile("tom").text
    assert len(promotions(tmp_path)) == 1


def test_nobody_waits_while_the_ids_of_many_pages_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that callers gave stand in the pages' records; those are read while others work with the memory."""
    reading = list[bool]()
    with open_fake(tmp_path, **SETTINGS | ONE_TOPIC) as memory:
        for number in range(12):
            memory.add("tom", statement(number), "I am a travel guide.", page_id=f"mine {number}")
        memory.wait_idle(PATIENCE_S)
        lock, read = memory._engine.coordinator.lock, PageReader._at_hand

        def watched(reader: PageReader, *page: Any) -> bytes | None:
            if threading.current_thread() is threading.main_thread():
                reading.append(lock.acquire(timeout=1.0))
                if reading[-1]:
                    lock.release()
            return read(reader, *page)

        monkeypatch.setattr(PageReader, "_at_hand", watched)
        assert {page_id for one in memory.sessions("tom") for page_id in one.page_ids} == {
            f"mine {number}" for number in range(12)
        }
        assert memory.knowledge("tom")[0].page_ids
        assert memory.retrieve("tom", statement(1)).user_knowledge[0].fact.page_ids
        monkeypatch.undo()
    assert reading
    assert all(reading)


def test_a_profile_whose_making_failed_is_made_from_the_same_pages_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = list[Outcome]()
    with open_fake(tmp_path, **SETTINGS | MANY_TOPICS | {"mid_term__heat_threshold": 1.0}) as memory:
        first, *_ = tell(memory, range(6))
        tell(memory, range(6, 9))
        assert memory.profile("tom").text
        told = Promotion._told

        def failed(self: Promotion, scope: Scope, work: Any, outcome: Outcome) -> None:
            failures.append(outcome._replace(fate="refused", error="no answer"))
            told(self, scope, work, failures[-1])

        with monkeypatch.context() as patch:
            patch.setattr(Promotion, "_told", failed)
            memory.forget(page_id=first)
            memory.wait_idle(PATIENCE_S)
            tell(memory, range(9, 12))  # too few to try it again
            assert len(failures) == 1
            assert not memory.profile("tom").text
        tell(memory, range(12, 18))
        assert memory.profile("tom").text
    assert sum(1 in seqs for seqs in promotions(tmp_path)) == 2
