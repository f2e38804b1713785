"""The store as a state machine against a plain model: whatever is done in any order, and whoever is killed.

``MOS_LAW_RUNS`` sets how many random runs are made; without it they are few, and the same each time.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mos_pipeline import InputError, Page
from mos_pipeline.pipeline import DEFAULT_ASSISTANT
from tests.faults.common import PATIENCE_S
from tests.laws.owner import Owner, View
from tests.test_forget import bytes_in

RUNS = int(os.environ.get("MOS_LAW_RUNS", "0"))
SETTINGS: dict[str, Any] = {
    "short_term__capacity": 3,
    "mid_term__capacity": 3,
    "mid_term__heat_threshold": 3.0,
    "long_term__promotion_pages": 6,
    "long_term__knowledge_capacity": 5,
    "store__frame_pages": 4,
    "store__journal_bytes": 65536,
    "store__flush_interval_s": 0.1,
    "llm__processes": 1,
    "retrieval__timeout_s": PATIENCE_S,
}
Scope = tuple[str, str]
SCOPES: list[Scope] = [("tom", DEFAULT_ASSISTANT), ("tom", "coach"), ("ann", DEFAULT_ASSISTANT)]
OWN_IDS = [f"own {number}" for number in range(4)]
TOPICS = ["beagle leash puppy kennel walk", "violin bow concert string tune", "tomato garden seed soil bean"]
MARK = re.compile(r"mark\d{4}")

scopes = st.sampled_from(SCOPES)
places = st.integers(0, 1000)


def texts(number: int) -> tuple[str, str]:
    """Both sides of a page that can be told from all others, whatever is quoted from it."""
    rng = random.Random(number)
    words = rng.choice(TOPICS).split()
    one, two, three = rng.sample(words, 3)
    said = f"I have a {one} named mark{number:04} and the {two} is {three}. The mark{number:04} {one} {two}."
    return said, f"I love the {three} of mark{number:04}. A {' '.join(words)} for mark{number:04}."


def marks(found: list[str]) -> set[str]:
    return {mark for text in found for mark in MARK.findall(text)}


class Store(RuleBasedStateMachine):
    """Drives a store's owner, and knows what must be in it."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.owner = owner
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name) / "store"
        self.pages: list[Page] = []
        self.forgotten: set[str] = set()
        self.forgotten_marks: set[str] = set()
        self.shown: set[Scope] = set()  # where pages were forgotten: their rings may hold less than they could
        self.number = 0
        self.workers = True
        self.settled: dict[Scope, View] | None = None  # memory as it was when all was done

    def of(self, scope: Scope) -> list[Page]:
        return [page for page in self.pages if (page.user_id, page.assistant_id) == scope]

    def open(self) -> None:
        self.owner.call("open", self.root, workers=self.workers, **SETTINGS)

    def teardown(self) -> None:
        try:
            self.owner.call("close")
        except (OSError, EOFError):
            self.owner.restart()
        self.folder.cleanup()

    # What can be done

    @initialize(first=scopes)
    def begin(self, first: Scope) -> None:
        self.open()
        self.add(first, 7, None)

    @rule(scope=scopes, count=st.integers(1, 8), own_id=st.none() | st.sampled_from(OWN_IDS))
    def add(self, scope: Scope, count: int, own_id: str | None) -> None:
        for place in range(count):
            self._add_one(scope, own_id if place == count // 2 else None)
        self.settled = None

    def _add_one(self, scope: Scope, own_id: str | None) -> None:
        user, assistant = scope
        self.number += 1
        fields = {"timestamp": f"2026-01-01 10:{self.number % 60:02}:00", "metadata": {"number": self.number}}
        add = partial(self.owner.call, "add", user, *texts(self.number), assistant_id=assistant, **fields)
        if any(page.page_id == own_id and page not in self.of(scope) for page in self.pages):
            with pytest.raises(InputError, match="of another user or assistant"):
                add(page_id=own_id)
            return
        page_id = add(page_id=own_id)
        if own_id is not None:
            assert page_id == own_id
            if any(page.page_id == own_id for page in self.pages):
                return  # the same id twice is one page, the first
            self.forgotten.discard(own_id)
        assert page_id not in self.forgotten
        assert all(page.page_id != page_id for page in self.pages)
        self.pages.append(Page(page_id, user, assistant, *texts(self.number), **fields))  # type: ignore[arg-type]

    def _gone(self, gone: list[Page], count: int) -> None:
        assert count == len(gone)
        self.forgotten |= {page.page_id for page in gone}
        self.forgotten_marks |= marks([page.user_input for page in gone])
        self.shown |= {(page.user_id, page.assistant_id) for page in gone}
        self.pages = [page for page in self.pages if page not in gone]
        self.settled = None

    @precondition(lambda self: self.pages)
    @rule(place=places)
    def forget_page(self, place: int) -> None:
        page = self.pages[place % len(self.pages)]
        self._gone([page], self.owner.call("forget", page_id=page.page_id))
        assert self.owner.call("forget", page_id=page.page_id) == 0

    @rule(scope=scopes, place=places)
    def forget_session(self, scope: Scope, place: int) -> None:
        user, assistant = scope
        sessions = self.owner.call("sessions", user, assistant_id=assistant)
        if sessions:
            session_id = sessions[place % len(sessions)].session_id
            before = self.of(scope)
            count = self.owner.call("forget", user, assistant_id=assistant, session_id=session_id)
            kept = {page.page_id for page in self.owner.call("pages", user, assistant_id=assistant, limit=1000)}
            gone = [page for page in before if page.page_id not in kept]
            wanted = set(sessions[place % len(sessions)].page_ids)  # more may have joined it meanwhile
            assert wanted <= {page.page_id for page in gone} or not count
            self._gone(gone, count)

    @rule(user=st.sampled_from(["tom", "ann"]), assistant=st.none() | st.just("coach"))
    def forget_user(self, user: str, assistant: str | None) -> None:
        gone = [page for page in self.pages if page.user_id == user and assistant in {None, page.assistant_id}]
        self._gone(gone, self.owner.call("forget", user, assistant_id=assistant))

    @precondition(lambda self: self.pages)
    @rule(place=places, k=st.integers(1, 30))
    def retrieve(self, place: int, k: int) -> None:
        page = self.pages[place % len(self.pages)]
        mine = self.of((page.user_id, page.assistant_id))
        (mark,) = marks([page.user_input])
        found = self.owner.call("retrieve", page.user_id, mark, assistant_id=page.assistant_id, k=k)
        hits = [hit.page for hit in found.pages]
        assert hits[0] == page
        assert all(hit in mine for hit in hits)
        assert len({hit.page_id for hit in hits}) == len(hits) <= k
        latest = found.short_term
        assert latest == mine[len(mine) - len(latest) :]
        assert len(latest) == min(3, len(mine)) or (page.user_id, page.assistant_id) in self.shown
        told = [*found.overviews, *(hit.fact.text for hit in found.user_knowledge), found.profile]
        told += [hit.fact.text for hit in found.assistant_knowledge]
        assert marks(told) <= marks([page.user_input for page in mine])
        self.settled = None

    @rule()
    def flush(self) -> None:
        self.owner.call("flush", timeout=PATIENCE_S)

    @precondition(lambda self: self.workers)
    @rule()
    def wait_idle(self) -> None:
        self.owner.call("wait_idle", PATIENCE_S)
        self.owner.call("check")
        self.settled = self._views()

    @precondition(lambda self: self.workers)
    @rule()
    def compact(self) -> None:
        self.owner.call("compact", PATIENCE_S)
        data = list(bytes_in(self.root))
        left = [mark for mark in self.forgotten_marks if any(mark.encode() in part for part in data)]
        assert not left, "forgotten pages are still on the disk"

    @rule(workers=st.sampled_from([True, True, False]))
    def reopen(self, workers: bool) -> None:
        self.owner.call("close")
        self._again(workers)

    @rule(workers=st.sampled_from([True, True, False]))
    def kill(self, workers: bool) -> None:
        self.owner.restart()
        self._again(workers)

    @precondition(lambda self: self.workers)
    @rule(
        what=st.sampled_from([("compact", (PATIENCE_S,)), ("wait_idle", (PATIENCE_S,)), ("flush", ()), ("close", ())]),
        pause_s=st.sampled_from([0.0, 0.003, 0.01, 0.03, 0.1]),
        workers=st.sampled_from([True, True, False]),
    )
    def kill_amid(self, what: tuple[str, tuple[Any, ...]], pause_s: float, workers: bool) -> None:
        name, args = what
        self.owner.ask(name, *args)
        time.sleep(pause_s)
        self.owner.restart()
        self._again(workers)

    def _again(self, workers: bool) -> None:
        settled, self.settled = self.settled, None
        self.workers = workers
        self.open()
        if settled is not None and workers:
            self.owner.call("wait_idle", PATIENCE_S)
            assert self._views() == settled, "memory is another after reopening"
            self.settled = settled

    # What must hold

    def _views(self) -> dict[Scope, View]:
        return {scope: _lasting(self.owner.call("look", *scope)) for scope in SCOPES}

    @invariant()
    def every_page_is_there(self) -> None:
        assert self.owner.call("all_pages") == self.pages
        assert self.owner.call("users") == list(dict.fromkeys(page.user_id for page in self.pages))
        ids = [page.page_id for page in self.pages]
        assert self.owner.call("get_all", ids) == self.pages
        assert not any(self.owner.call("get_all", sorted(self.forgotten)))

    @invariant()
    def nothing_tells_of_other_pages(self) -> None:
        for scope in SCOPES:
            view, mine = self.owner.call("look", *scope), self.of(scope)
            assert view.pages == mine
            assert marks(view.texts()) <= marks([page.user_input for page in mine])


def _lasting(view: View) -> View:
    """Leave out what a kill may cost, and what time changes."""
    sessions = [(one.session_id, one.summary, one.keywords, one.timestamp, one.page_ids) for one in view.sessions]
    return View(view.pages, sorted(sessions), view.facts, view.profile, view.overviews)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_store_follows_a_plain_model() -> None:
    with Owner() as owner:
        run_state_machine_as_test(
            partial(Store, owner),  # type: ignore[arg-type]  # whatever makes a machine will do
            settings=settings(
                max_examples=RUNS or 15,
                stateful_step_count=20,
                deadline=None,
                derandomize=not RUNS,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
