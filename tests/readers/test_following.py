"""A reader that follows its owner tells, at rest, what a reader opened anew tells, and what the owner tells."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from tests.readers.common import IDLE_S, SETTINGS, fill, open_reader, settled, told
from tests.support import open_fake

USERS = ("tom", "ann")


class Owner:
    """A pipeline that random things happen to, and that may be opened again in the midst of it."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._rng = random.Random(seed)
        self._next = 0
        self.memory = open_fake(path, **SETTINGS)

    def step(self) -> None:
        """Let something happen; it need not be worked off on return."""
        deeds: list[Callable[[], object]] = [self._add, self._add, self._add, self._forget_page, self._forget_session]
        self._rng.choice([*deeds, *deeds, self._compact, self._reopen])()

    def _add(self) -> None:
        count = self._rng.randint(1, 8)
        fill(self.memory, self._rng.choice(USERS), range(self._next, self._next + count))
        self._next += count

    def _forget_page(self) -> None:
        pages = self.memory.pages(limit=1000)
        if pages:
            self.memory.forget(page_id=self._rng.choice(pages).page_id)

    def _forget_session(self) -> None:
        user = self._rng.choice(USERS)
        sessions = self.memory.sessions(user)
        if sessions:
            self.memory.forget(user, session_id=self._rng.choice(sessions).session_id)

    def _compact(self) -> None:
        self.memory.compact(IDLE_S)

    def _reopen(self) -> None:
        self.memory.close()
        self.memory = open_fake(self._path, **SETTINGS)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_a_follower_tells_what_a_fresh_reader_tells(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    owner = Owner(tmp_path, seed)
    with open_reader(tmp_path) as follower:
        try:
            for _ in range(6):
                for _ in range(5):
                    owner.step()
                    if rng.random() < 0.7:
                        follower.refresh()
                settled(owner.memory)
                follower.refresh()
                with open_reader(tmp_path) as fresh:
                    expected = told(fresh, visits=False)
                    assert told(follower, visits=False) == expected
        finally:
            owner.memory.close()


def test_what_was_added_is_there_after_refresh_and_not_before(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", range(4))
        with open_reader(tmp_path, workers=False) as reader:
            before = told(reader)
            page_id = memory.add("tom", "a walrus", "indeed")
            memory.add("zoe", "velvet", "")
            assert told(reader) == before
            reader.refresh()
            assert reader.users() == ["tom", "zoe"]
            found = reader.retrieve("tom", "walrus", k=1)
            assert [hit.page.page_id for hit in found.pages] == [page_id]
            assert found.short_term[-1].page_id == page_id
            assert reader.get(page_id) == memory.get(page_id)


def test_forgotten_pages_are_gone_after_refresh_however_far_the_owner_is(tmp_path: Path) -> None:
    """The tombstone is in the journal at once, what the owner makes of it comes to the segments later."""
    with open_fake(tmp_path, **SETTINGS, store__flush_interval_s=3600.0) as memory:
        ids = fill(memory, "tom", range(12))
        memory.add("tom", "The quetzalcoatl is mine.", "", page_id="secret")
        ids += fill(memory, "tom", range(12, 18))
        settled(memory)
        with open_reader(tmp_path) as reader:
            holds = [one for one in reader.sessions("tom") if "secret" in one.page_ids]
            assert holds
            memory.forget(page_id="secret")
            reader.refresh()
            assert reader.get("secret") is None
            assert not [one for one in reader.sessions("tom") if "secret" in one.page_ids]
            assert "quetzalcoatl" not in repr(told(reader))
            assert [page.page_id for page in reader.pages("tom")] == ids
            settled(memory)
            reader.refresh()
            assert told(reader, visits=False) == told(memory, visits=False)


def test_an_id_that_was_forgotten_and_given_again_means_the_new_page(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS, workers=False) as memory, open_reader_of(memory, tmp_path) as reader:
        memory.add("tom", "the first", "", page_id="mine")
        reader.refresh()
        memory.forget(page_id="mine")
        memory.add("tom", "the second", "", page_id="mine")
        reader.refresh()
        page = reader.get("mine")
        assert page is not None
        assert page.user_input == "the second"
        assert len(reader.pages("tom")) == 1


def open_reader_of(memory: MemoryPipeline, path: Path) -> MemoryPipeline:
    """Open a reader of a store that is there by now."""
    memory.flush()
    return open_reader(path, workers=False)
