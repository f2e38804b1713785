"""Opening read-only: what a reader may do, what it leaves alone, and what goes wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import ClosedError, DeadlineError, InputError, MemoryPipeline, StoreError, StoreLockedError
from mos_pipeline.engine.browsing import Browsing
from mos_pipeline.messages import SourceMark
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.readonly import ReadOnlyStore
from mos_pipeline.store.recovery import open_store
from tests.readers.common import SETTINGS, fill, open_reader, settled, told
from tests.store.common import CONFIG, record
from tests.support import all_pages, children, open_fake, own_blocks

WRITING: list[Callable[[MemoryPipeline], object]] = [
    lambda memory: memory.add("tom", "no", ""),
    lambda memory: memory.add_many([{"user_id": "tom", "user_input": "no", "agent_response": ""}]),
    lambda memory: memory.add_batch([{"user_id": "tom", "user_input": "no", "agent_response": ""}]),
    lambda memory: memory.forget("tom"),
    lambda memory: memory.compact(),
    lambda memory: memory.flush(),
    lambda memory: memory.wait_idle(),
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that nobody owns."""
    path = tmp_path / "store"
    with open_fake(path, **SETTINGS) as memory:
        fill(memory, "tom", range(10))
        memory.add("ann", "velvet for ann", "", source=SourceMark(b"digest", 4))
        settled(memory)
    return path


def state_of(path: Path) -> dict[str, int]:
    """Return every file and folder of a store, and when it was changed."""
    return {str(entry): entry.stat().st_mtime_ns for entry in path.rglob("*")}


@pytest.mark.parametrize("write", WRITING)
def test_a_reader_refuses_to_write(store: Path, write: Callable[[MemoryPipeline], object]) -> None:
    with open_reader(store, workers=False) as reader, pytest.raises(InputError, match="opened read-only"):
        write(reader)


def test_reading_changes_nothing_and_leaves_nothing(store: Path) -> None:
    before = state_of(store)
    with open_reader(store) as reader:
        assert not children()
        assert told(reader)["pages"] == all_pages(reader)
        assert list(children().values())
        assert not [name for name in own_blocks() if not name.startswith("sem.")]
        reader.refresh()
        assert reader.verify().ok
        assert reader.sources() == {b"digest": 5}
        assert "read-only" in repr(reader)
    assert state_of(store) == before
    with pytest.raises(ClosedError):
        reader.refresh()


def test_without_workers_words_decide(store: Path) -> None:
    with open_reader(store, workers=False) as reader:
        found = reader.retrieve("tom", "number3", k=1)
        assert found.degraded
        assert found.pages[0].page.user_input.split()[4] == "number3"
        assert reader.stats().workers == {}
        assert reader.stats().pages == 11
        assert not children()


def test_with_another_model_words_decide(store: Path) -> None:
    settings: dict[str, Any] = {"embedding__backend": "torch", "embedding__model": "no/such-model"}
    with open_reader(store, **settings) as reader:
        found = reader.retrieve("tom", "number3", k=1)
        assert found.degraded
        assert found.pages[0].dense is None
        assert reader.stats().workers["embedder"].state == "failed"


def test_an_owner_is_neither_kept_out_nor_let_in_by_readers(store: Path) -> None:
    with open_reader(store, workers=False) as reader:
        with open_fake(store, **SETTINGS, workers=False) as owner:
            with pytest.raises(StoreLockedError) as caught:
                open_fake(store, **SETTINGS, workers=False)
            assert caught.value.pid == os.getpid()
            with pytest.raises(InputError, match="owns the store"):
                owner.refresh()
            owner.add("tom", "a walrus", "")
        reader.refresh()
        assert len(all_pages(reader)) == 12


def test_visits_of_readers_are_not_counted(store: Path) -> None:
    with open_reader(store) as reader:
        before = reader.sessions("tom")
        for number in range(9):
            assert reader.retrieve("tom", f"number{number}").pages
        assert [one.visits for one in reader.sessions("tom")] == [one.visits for one in before]


def test_a_folder_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store here"):
        open_reader(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_store_of_a_time_before_readers_is_pinned_where_that_may_be_written(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = StoreFolder(store).pins
    for path in pins.iterdir():
        path.unlink()
    pins.rmdir()
    with open_reader(store, workers=False) as reader:
        assert len(all_pages(reader)) == 11
    for path in pins.iterdir():
        path.unlink()

    def refuse(path: Any, flags: int, *_: Any, **__: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags)

    opened = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(StoreError, match="open the store once to write"):
            open_reader(store, workers=False)


def test_vectors_that_come_after_opening_are_searched(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS, workers=False) as memory:
        fill(memory, "tom", range(7))
    with open_reader(tmp_path) as reader:
        assert reader.retrieve("tom", "number3").degraded
        with open_fake(tmp_path, **SETTINGS) as memory:
            settled(memory)
            reader.refresh()
            assert not reader.retrieve("tom", "number3").degraded
            assert told(reader, visits=False) == told(memory, visits=False)


def test_a_call_that_began_before_a_compaction_ends_well(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads what was there when it began; the refresh after the next waits for it."""
    inside, go_on, answers = threading.Event(), threading.Event(), list[Any]()
    pages = Browsing.pages

    def slow(self: Browsing, seqs: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return pages(self, seqs)

    with open_fake(store, **SETTINGS) as owner, open_reader(store, workers=False, retrieval__timeout_s=0.05) as reader:
        expected = reader.retrieve("tom", "number3", k=3)
        with monkeypatch.context() as patch:
            patch.setattr(Browsing, "pages", slow)
            thread = threading.Thread(target=lambda: answers.append(reader.retrieve("tom", "number3", k=3)))
            thread.start()
            assert inside.wait(60)
        owner.forget("ann")
        owner.compact(60)
        reader.refresh()
        with pytest.raises(DeadlineError):
            reader.refresh()
        go_on.set()
        thread.join()
        assert answers == [expected]
        reader.refresh()
        assert reader.users() == ["tom"]


def test_a_refresh_that_failed_is_made_good_by_the_next(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_fake(store, **SETTINGS) as owner, open_reader(store) as reader:
        fill(owner, "tom", range(10, 20))
        settled(owner)

        def fail(*_: object) -> None:
            raise StoreError("the disk failed")

        with monkeypatch.context() as patch:
            patch.setattr("mos_pipeline.engine.replay.Replay.enter", fail)
            with pytest.raises(StoreError, match="the disk failed"):
                reader.refresh()
        reader.refresh()
        assert told(reader, visits=False) == told(owner, visits=False)


def test_a_page_behind_a_gap_waits_for_the_gap_to_be_filled_or_to_be_known_as_lost(tmp_path: Path) -> None:
    with open_store(tmp_path, CONFIG) as owner:
        journal, other = owner.new_journal(), owner.new_journal()
        for seq in (0, 1):
            journal.append(seq, record(seq))
        with open_reader(tmp_path, workers=False) as reader:
            other.append(3, record(3))
            reader.refresh()
            assert len(all_pages(reader)) == 2  # page 2 may be on its way
            journal.append(2, record(2))
            reader.refresh()
            assert len(all_pages(reader)) == 4
            other.append(5, record(5))
            reader.refresh()
            assert len(all_pages(reader)) == 4
            reader.refresh()
            assert len(all_pages(reader)) == 5  # page 4 would have been seen by now
            assert reader.stats().damage == []
        with open_reader(tmp_path, workers=False) as late:
            assert len(all_pages(late)) == 5


def test_files_are_let_go_of_at_close(store: Path) -> None:
    with open_fake(store, **SETTINGS) as owner:
        reader = open_reader(store)
        assert reader.retrieve("tom", "number3").pages
        reader.close()
        reader.close()
        owner.forget("ann")
        owner.compact(60)
        with ReadOnlyStore.open(store) as left:
            assert len(left.manifest.segments) == len(list(StoreFolder(store).segments.iterdir()))
