"""Forgetting: what is forgotten is found nowhere any more, and nothing else is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import InputError, MemoryPipeline
from mos_pipeline.messages import is_tombstone
from mos_pipeline.store.codec import FrameKind, unpack_pages
from mos_pipeline.store.folder import StoreFolder, numbered
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segments import SegmentReader
from tests.faults.common import PATIENCE_S, check_consistent
from tests.support import all_pages, open_fake, page_text

SECRET = "quetzalcoatl"
SETTINGS: dict[str, Any] = {"short_term__capacity": 4, "store__frame_pages": 4, "store__journal_bytes": 65536}


def fill(memory: MemoryPipeline, user: str, pages: int, first: int = 0, **fields: Any) -> list[str]:
    return [memory.add(user, *page_text(number), **fields) for number in range(first, first + pages)]


def tell_secret(memory: MemoryPipeline, user: str = "tom", **fields: Any) -> str:
    said = f"I hid the {SECRET} statue under the old bridge. The {SECRET} statue is mine."
    return memory.add(user, said, f"I keep your {SECRET} secret.", **fields)


def texts_in(memory: MemoryPipeline, user: str = "tom") -> Iterator[str]:
    """Every text that the library shows of a user."""
    for page in all_pages(memory, user):
        yield from (page.user_input, page.agent_response)
    for session in memory.sessions(user, limit=1000):
        yield from (session.summary, *session.keywords)
    for about in ("user", "assistant"):
        yield from (fact.text for fact in memory.knowledge(user, about=about))
    yield memory.profile(user).text
    found = memory.retrieve(user, f"the {SECRET} statue", k=1000, timeout=PATIENCE_S)
    for hit in found.pages:
        yield from (hit.page.user_input, hit.overview)
    yield from (page.user_input for page in found.short_term)


def told(memory: MemoryPipeline, user: str = "tom") -> list[str]:
    return [text for text in texts_in(memory, user) if SECRET in text.lower()]


def bytes_in(folder: Path) -> Iterator[bytes]:
    """Every byte of a store's files, and every frame unpacked."""
    store = StoreFolder(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()
    reader = SegmentReader(store)
    for number, _ in numbered(store.segments, ".segment"):
        yield from (item.body for item in reader.scan(number) if isinstance(item, Frame))
    reader.close()


def on_disk(folder: Path) -> bool:
    return any(SECRET.encode() in data for data in bytes_in(folder))


def test_a_forgotten_page_is_found_nowhere_and_the_others_are(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        before = fill(memory, "tom", 10)
        page_id = tell_secret(memory)
        after = fill(memory, "tom", 10, first=10)
        memory.wait_idle(PATIENCE_S)
        assert told(memory)
        assert memory.forget(page_id=page_id) == 1
        assert memory.get(page_id) is None
        assert not [text for text in told(memory) if text.startswith("I hid")]
        memory.wait_idle(PATIENCE_S)
        assert not told(memory)
        assert [page.page_id for page in all_pages(memory, "tom")] == before + after
        assert memory.stats().pages == 20
        assert memory.forget(page_id=page_id) == 0
        check_consistent(memory)


@pytest.mark.parametrize("workers", [True, False])
def test_what_is_forgotten_stays_so_after_reopening(tmp_path: Path, workers: bool) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 7)
        page_id = tell_secret(memory)
        fill(memory, "tom", 14, first=7)
        memory.wait_idle(PATIENCE_S)
    with open_fake(tmp_path, workers=workers, **SETTINGS) as memory:
        assert memory.forget(page_id=page_id) == 1
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        assert not told(memory)
        assert memory.get(page_id) is None
        sessions = memory.sessions("tom")
        check_consistent(memory)
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        kept = [(one.session_id, one.summary, one.page_ids) for one in memory.sessions("tom")]
        assert sorted(kept) == sorted((one.session_id, one.summary, one.page_ids) for one in sessions)
        assert memory.verify().ok


def test_the_pages_left_of_a_session_have_their_places_again(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 3)
        page_id = tell_secret(memory)
        fill(memory, "tom", 9, first=3)
        memory.wait_idle(PATIENCE_S)
        placed = {page for session in memory.sessions("tom") for page in session.page_ids}
        memory.forget(page_id=page_id)
        memory.wait_idle(PATIENCE_S)
        assert {page for session in memory.sessions("tom") for page in session.page_ids} == placed - {page_id}


def test_after_compaction_its_bytes_are_gone(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 10)
        page_id = tell_secret(memory, page_id=f"{SECRET}-page", metadata={"note": SECRET})
        fill(memory, "ann", 10, first=10)
        tell_secret(memory, user=f"{SECRET}-user")
        memory.wait_idle(PATIENCE_S)
        pages = [page for page in all_pages(memory) if SECRET not in page.user_input]
        memory.flush()
        assert on_disk(tmp_path)
        memory.forget(page_id=page_id)
        memory.forget(f"{SECRET}-user")
        memory.wait_idle(PATIENCE_S)
        result = memory.compact(PATIENCE_S)
        assert 0 < result.after < result.before
        assert not on_disk(tmp_path)
        assert all_pages(memory) == pages
        fill(memory, "tom", 5, first=30)
        memory.wait_idle(PATIENCE_S)
        assert memory.verify().ok
        pages = all_pages(memory)
        sessions = memory.sessions("tom")
    assert not on_disk(tmp_path)
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        assert all_pages(memory) == pages
        assert memory.users() == ["tom", "ann"]
        assert sorted(one.page_ids for one in memory.sessions("tom")) == sorted(one.page_ids for one in sessions)
        check_consistent(memory)
        assert memory.verify().ok


def tombstones_in(folder: Path) -> int:
    store = StoreFolder(folder)
    reader = SegmentReader(store)
    frames = [
        unpack_pages(item.body)
        for number, _ in numbered(store.segments, ".segment")
        for item in reader.scan(number, {FrameKind.PAGES})
        if isinstance(item, Frame) and item.kind == FrameKind.PAGES
    ]
    reader.close()
    return sum(is_tombstone(record) for frame in frames for record in frame.records)


def test_a_tombstone_goes_with_its_pages_bytes(tmp_path: Path) -> None:
    """Also one that no segment has yet when the compaction begins; no later one would take it."""
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 20)
        memory.wait_idle(PATIENCE_S)
        for number in (3, 7):
            memory.forget(page_id=all_pages(memory)[number].page_id)
            memory.compact(PATIENCE_S)
            assert tombstones_in(tmp_path) == 0
        memory.forget(page_id=all_pages(memory)[1].page_id)
        memory.flush()
        assert tombstones_in(tmp_path) == 1


def test_a_user_is_forgotten_with_every_assistant_or_with_one(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 5, assistant_id="one")
        fill(memory, "tom", 6, first=5, assistant_id="two")
        fill(memory, "ann", 7, first=11, assistant_id="one")
        assert memory.forget("tom", assistant_id="one") == 5
        assert [page.assistant_id for page in all_pages(memory)] == ["two"] * 6 + ["one"] * 7
        assert memory.forget("tom") == 6
        assert memory.users() == ["ann"]
        assert memory.forget("nobody") == 0
        assert len(all_pages(memory)) == 7
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().backlog_bytes == 0


def test_a_session_is_forgotten_with_its_pages_only(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 20)
        memory.wait_idle(PATIENCE_S)
        session, *others = memory.sessions("tom")
        assert memory.forget("tom", session_id=session.session_id) == len(session.page_ids)
        assert all(memory.get(page_id) is None for page_id in session.page_ids)
        assert all(memory.get(page_id) for other in others for page_id in other.page_ids)
        assert memory.forget("tom", session_id=session.session_id) == 0


def test_the_id_of_a_forgotten_page_may_be_given_again(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        mine, automatic = memory.add("tom", "first", "", page_id="mine"), memory.add("tom", "second", "")
        memory.forget("tom")
        assert memory.add("tom", "third", "", page_id=mine) == mine
        assert memory.add("tom", "fourth", "", page_id=automatic) == automatic
        assert [page.user_input for page in all_pages(memory)] == ["third", "fourth"]
    for _ in range(2):
        with open_fake(tmp_path, **SETTINGS) as memory:
            assert [(page.page_id, page.user_input) for page in all_pages(memory)] == [
                (mine, "third"),
                (automatic, "fourth"),
            ]
            memory.wait_idle(PATIENCE_S)
            memory.compact(PATIENCE_S)


def test_a_page_keeps_its_id_when_the_one_that_had_it_before_is_gone(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        tag = memory.add("tom", "first", "").rpartition("-")[0]
        later = memory.add("tom", "second", "", page_id=f"{tag}-{5:012x}")
        memory.forget(page_id=later)
        ids = [memory.add("tom", *page_text(number)) for number in range(5)]
        assert f"{later}+" in ids
        memory.wait_idle(PATIENCE_S)
        memory.compact(PATIENCE_S)
    for _ in range(2):
        with open_fake(tmp_path, **SETTINGS) as memory:
            assert [page.page_id for page in all_pages(memory)[1:]] == ids
            assert all(memory.get(page_id) for page_id in ids)
            assert memory.get(later) is None
            memory.forget(page_id=ids.pop(0))
            memory.wait_idle(PATIENCE_S)
            memory.compact(PATIENCE_S)
            assert memory.verify().ok


def test_a_page_that_comes_while_its_id_is_forgotten_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_fake(tmp_path, workers=False, **SETTINGS) as memory:
        coordinator = memory._engine.coordinator
        real = coordinator.absorb

        def absorb(limit: int | None = None) -> None:
            real(limit)
            memory.add("tom", "hello", "", page_id="mine")

        monkeypatch.setattr(coordinator, "absorb", absorb)
        assert memory.forget(page_id="mine") == 0
        monkeypatch.undo()
        assert [page.page_id for page in all_pages(memory)] == ["mine"]
        assert memory.forget(page_id="mine") == 1


def test_pages_are_forgotten_while_they_are_worked_on(tmp_path: Path) -> None:
    """Whatever comes back of work that was under way, nothing of a forgotten page stays."""
    rng = random.Random(1)
    with open_fake(tmp_path, embedding__fake_ms_per_text=2.0, **SETTINGS) as memory:
        kept = []
        for number in range(150):
            page_id = memory.add(f"user {number % 3}", *page_text(number))
            kept.append(page_id)
            if number % 5 == 4:
                memory.forget(page_id=kept.pop(rng.randrange(len(kept))))
        memory.wait_idle(PATIENCE_S)
        assert sorted(page.page_id for page in all_pages(memory)) == sorted(kept)
        stats = memory.stats()
        assert (stats.backlog_pages, stats.backlog_bytes, stats.unwritten) == (0, 0, 0)
        state = memory._engine.state
        rows = sum(len(scope.mid_term) + len(scope.long_term.knowledge) for scope in state.scopes)
        rows += sum(len(scope.long_term.assistant_knowledge) for scope in state.scopes)
        assert stats.vectors == len(kept) + rows
        check_consistent(memory)


def test_what_is_not_named_clearly_is_refused(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        page_id = memory.add("tom", "hello", "")
        wrong: list[dict[str, Any]] = [{}, {"user_id": "tom", "page_id": page_id}, {"page_id": ""}, {"user_id": ""}]
        for arguments in wrong:
            with pytest.raises(InputError):
                memory.forget(**arguments)
        assert memory.get(page_id)
