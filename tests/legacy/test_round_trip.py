"""There and back: what the files can hold comes back as it was."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_pipeline import MemoryPipeline
from mos_pipeline.config import load_config
from mos_pipeline.exporting import NO_TOPIC, export_memoryos
from mos_pipeline.legacy.folder import LegacyFolder
from mos_pipeline.legacy.model import LegacyFact, LegacyPage, LegacySession, LegacyUser, Problem
from mos_pipeline.legacy.parsing import NOTHING, parse_assistant, parse_user
from mos_pipeline.legacy.writing import LegacyWriter, can_be_folder, new_folder
from mos_pipeline.memory.takeover import Vector
from tests.cli.common import telling_records
from tests.legacy.common import ASSISTANT, migrate
from tests.support import FAKE

TEXTS = st.text(st.characters(codec="utf-8") | st.just("\ud800"), max_size=12)
FOLDERS = st.text(min_size=1, max_size=12).filter(can_be_folder)
SECONDS = st.integers(1, 4_000_000_000).map(float)
COUNTS = st.integers(0, 1000)
JSON = st.recursive(st.integers(-9, 9) | st.text(max_size=3) | st.booleans(), lambda inner: st.lists(inner, max_size=2))
EXTRA = st.dictionaries(st.sampled_from(["page_keywords", "preloaded", "other"]), JSON.filter(bool), max_size=2)


@st.composite
def vectors(draw: st.DrawFn) -> Vector | None:
    """Draw a vector of length 1, or none."""
    numbers = draw(st.none() | st.lists(st.integers(-9, 9), min_size=4, max_size=4).filter(any))
    return None if numbers is None else (np.array(numbers) / np.linalg.norm(numbers)).astype(np.float16)


SAID = st.builds(LegacyPage, TEXTS, TEXTS, TEXTS)
PAGES = st.builds(LegacyPage, TEXTS, TEXTS, TEXTS, TEXTS, st.booleans(), TEXTS, TEXTS, TEXTS, vectors(), EXTRA)
FACTS = st.lists(
    st.builds(LegacyFact, TEXTS.filter(lambda text: text.strip().casefold() not in NOTHING), TEXTS, vectors()),
    max_size=3,
).map(tuple)
SESSIONS = st.builds(
    LegacySession,
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=3).map(tuple),
    TEXTS,
    st.lists(PAGES, max_size=3).map(tuple),
    COUNTS,
    COUNTS,
    SECONDS,
    COUNTS,
    vectors(),
)
USERS = st.builds(
    LegacyUser,
    FOLDERS,
    st.lists(SAID, max_size=3).map(tuple),
    st.lists(SESSIONS, max_size=3, unique_by=lambda one: one.session_id).map(tuple),
    TEXTS.map(lambda text: "" if text.strip().casefold() in NOTHING else text),
    TEXTS,
    FACTS,
    FACTS,
)


def comparable(value: Any) -> Any:
    """Return a value without the places, and with vectors as lists."""
    if isinstance(value, tuple):
        return tuple(map(comparable, value))
    if isinstance(value, LegacyPage | LegacyFact | LegacySession):
        vector = None if value.vector is None else value.vector.tolist()
        value = replace(value, vector=vector, place=("", ""))
    if isinstance(value, LegacySession):
        return replace(value, pages=comparable(value.pages))
    if isinstance(value, LegacyUser):
        parts = ("short", "sessions", "knowledge", "assistant_knowledge")
        value = replace(value, **{name: comparable(getattr(value, name)) for name in parts})
        return value if value.profile else replace(value, updated="")
    return value


@settings(deadline=None)  # it waits for the disk
@given(USERS, FACTS)
def test_files_that_were_written_are_read_as_they_were(user: LegacyUser, told: tuple[LegacyFact, ...]) -> None:
    with tempfile.TemporaryDirectory() as root:
        path, problems = Path(root) / "out", list[Problem]()
        with new_folder(path) as folder:
            writer = LegacyWriter(folder, 4, 2e9)
            writer.user(user)
            writer.assistant("mia", told)
        found = LegacyFolder(path)
        assert (found.users, found.assistants) == ([user.user_id], ["mia"])
        assert comparable(parse_user(found, user.user_id, problems)) == comparable(user)
        assert comparable(parse_assistant(found, "mia", problems).knowledge) == comparable(told)
        assert problems == []


# A store's life: what is said by whom, and which of the pages so far is forgotten after it.
LIVES = st.lists(st.tuples(st.sampled_from(["tom", "ann"]), st.none() | st.integers(0, 30)), min_size=1, max_size=24)
TELLING: dict[str, Any] = {
    **FAKE,
    "short_term__capacity": 3,
    "mid_term__heat_threshold": 2.0,
    "long_term__promotion_pages": 2,
    "llm__processes": 1,
}


def live(store: Path, life: Sequence[tuple[str, int | None]]) -> None:
    """Have a store lead that life."""
    said = telling_records()
    with MemoryPipeline.open(store, **TELLING) as memory:
        for number, (user, forgotten) in enumerate(life):
            record = said[number % len(said)]
            memory.add(
                user,
                f"{record['user_input']} {number}",
                record["agent_response"],
                assistant_id=ASSISTANT,
                timestamp=f"2026-03-01 10:{number:02}:00",
                page_id=f"page {number}",
            )
            if forgotten is not None and forgotten <= number:
                memory.forget(page_id=f"page {forgotten}")
        memory.wait_idle(60)
        memory.retrieve("tom", "beagle", assistant_id=ASSISTANT)


def kept(store: Path) -> dict[str, Any]:
    """Return all of a store that the files can hold."""
    found: dict[str, Any] = {}
    with MemoryPipeline.open(store, read_only=True, workers=False, **TELLING) as memory:
        for user in memory.users():
            pages = memory.pages(user, assistant_id=ASSISTANT)
            said = {page.page_id: (page.user_input, page.agent_response, page.timestamp) for page in pages}
            sessions = memory.sessions(user, assistant_id=ASSISTANT)
            profile = memory.profile(user, assistant_id=ASSISTANT)
            with memory._opened.reading() as view:  # type: ignore[union-attr]
                scope = view.state.find(user, ASSISTANT)
                assert scope is not None
                fresh = {
                    said[view.browsing.pages([seq])[0].page_id] for one in scope.mid_term.sessions for seq in one.fresh
                }
                figures = Counter(
                    (one.summary, one.visits, one.interactions, int(one.last_visit), one.accesses)
                    for one in scope.mid_term.sessions
                )
                chains = {
                    text: (view.state.chains.overview(seq), view.state.chains.before(seq) >= 0)
                    for seq, text in zip(view.state.pages.seqs_of(scope.number).tolist(), said.values(), strict=True)
                    if scope.mid_term.session_of(seq) is not None
                }
            found[user] = {
                "pages": list(said.values()),
                "sessions": Counter(
                    (one.summary, one.keywords, one.timestamp, tuple(said[page_id] for page_id in one.page_ids))
                    for one in sessions
                ),
                "figures": figures,
                "chains": chains,
                "fresh": fresh,
                "profile": (profile.text, profile.updated if profile.text else ""),
                **{
                    about: [
                        (one.text, one.timestamp) for one in memory.knowledge(user, assistant_id=ASSISTANT, about=about)
                    ]
                    for about in ("user", "assistant")
                },
            }
    return found


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LIVES)
def test_what_was_exported_and_moved_back_is_the_memory_that_it_was(life: list[tuple[str, int | None]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        store, back, out = (Path(root) / name for name in ("store", "back", "out"))
        live(store, life)
        before = kept(store)
        if not before:
            return  # all was forgotten
        exported = export_memoryos(store, load_config(overrides=TELLING), out, None, None, lambda: None)
        assert exported.pages == sum(len(one["pages"]) for one in before.values())
        report = migrate(out, back, **{name: value for name, value in TELLING.items() if name not in FAKE})
        assert report.set_aside == []
        assert report.made == 0
        assert NO_TOPIC not in json.dumps([*map(str, kept(back).values())])
        assert kept(back) == before
