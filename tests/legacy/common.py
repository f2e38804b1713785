"""Small data folders of the original MemoryOS, with vectors of the fake model, and a look at what became of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from mos_pipeline.config import load_config
from mos_pipeline.legacy.folder import LegacyFolder
from mos_pipeline.legacy.report import Report
from mos_pipeline.migration import Migration, MigrationStore
from mos_pipeline.stages.fake_backend import FakeBackend
from tests.support import FAKE, all_pages

ASSISTANT = "mia"
Json = dict[str, Any]


def vector(text: str) -> list[float]:
    """Return what the fake model makes of a text."""
    backend = FakeBackend(load_config(overrides=FAKE).embedding)
    numbers: list[float] = backend.exact(backend.prepare([text]))[0].tolist()
    return numbers


def short_page(number: int, hour: int = 10) -> Json:
    """Return a page as short-term memory has it."""
    return {
        "user_input": f"question {number} about thing{number}",
        "agent_response": f"answer {number}",
        "timestamp": f"2026-01-{number % 27 + 1:02} {hour:02}:00:00",
    }


def mid_page(number: int, **fields: Any) -> Json:
    """Return a page as a session has it, with any of its fields replaced."""
    page = short_page(number)
    text = f"User: {page['user_input']} Assistant: {page['agent_response']}"
    rest = {
        "page_id": f"page_{number:08x}",
        "preloaded": False,
        "analyzed": True,
        "pre_page": None,
        "next_page": None,
        "meta_info": None,
        "page_embedding": vector(text),
        "page_keywords": [],
    }
    return {**page, **rest, **fields}


def session(name: str, pages: Sequence[Json], **fields: Any) -> Json:
    """Return a session, with any of its fields replaced."""
    summary = f"summary of {name}"
    made = {
        "id": name,
        "summary": summary,
        "summary_keywords": [f"{name} word", "shared"],
        "summary_embedding": vector(summary),
        "details": list(pages),
        "L_interaction": sum(not page["analyzed"] for page in pages),
        "R_recency": 1.0,
        "N_visit": 0,
        "H_segment": 1.0,
        "timestamp": "2026-02-01 10:00:00",
        "last_visit_time": "2026-02-02 11:22:33",
        "access_count_lfu": 0,
    }
    return {**made, **fields}


def fact(text: str, timestamp: str = "2026-02-03 10:00:00") -> Json:
    """Return a piece of knowledge."""
    return {"knowledge": text, "timestamp": timestamp, "knowledge_embedding": vector(text)}


def mid_term(*sessions: Json) -> Json:
    """Return what mid_term.json holds."""
    by_id = {one["id"]: one for one in sessions}
    return {"sessions": by_id, "access_frequency": {name: one["access_count_lfu"] for name, one in by_id.items()}}


def long_term(user_id: str = "", profile: str = "", facts: Sequence[Json] = (), told: Sequence[Json] = ()) -> Json:
    """Return what long_term_user.json or long_term_assistant.json holds."""
    profiles = {user_id: {"data": profile, "last_updated": "2026-02-04 10:00:00"}} if profile else {}
    return {"user_profiles": profiles, "knowledge_base": list(facts), "assistant_knowledge": list(told)}


def put(root: Path, path: str, data: Any, *, zipped: bool = False) -> Path:
    """Write a file of a data folder: JSON, or bytes as they are."""
    file = root / (f"{path}.gz" if zipped else path)
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    file.write_bytes(gzip.compress(raw) if zipped else raw)
    return file


def tom(root: Path, *, zipped: bool = False) -> Path:
    """Write a data folder of the user tom and the assistant mia, with some of everything: 6 + 2 pages, 2 sessions."""
    linked = [
        mid_page(0, next_page="page_00000001", meta_info="of things"),
        mid_page(1, pre_page="page_00000000", next_page="page_00000004", meta_info="of things"),
        mid_page(4, pre_page="page_00000001", meta_info="of things and more", analyzed=False),
    ]
    rest = [mid_page(2), mid_page(3, page_keywords=["kept"]), mid_page(5, analyzed=False)]
    sessions = (
        session("session_a", linked, N_visit=2, access_count_lfu=5),
        session("session_b", rest, N_visit=1, access_count_lfu=1, last_visit_time="2026-02-05 01:02:03"),
    )
    put(root, "users/tom/mid_term.json", mid_term(*sessions), zipped=zipped)
    put(root, "users/tom/short_term.json", [short_page(20), short_page(21)], zipped=zipped)
    facts = [fact("tom likes tea"), fact("tom has a dog named Rex", "2026-02-03 11:00:00")]
    profile = "Openness (High): tries new things, likes tea and walks."
    put(root, "users/tom/long_term_user.json", long_term("tom", profile, facts), zipped=zipped)
    told = long_term(told=[fact("the assistant recommended a book")])
    put(root, f"assistants/{ASSISTANT}/long_term_assistant.json", told, zipped=zipped)
    return root


def migrate(legacy: Path, store: Path, *, assistant: str = ASSISTANT, wait: bool = True, **settings: Any) -> Report:
    """Move a data folder into a store with the fake model, in this process."""
    config = load_config(overrides={**FAKE, **settings})
    migration = Migration(LegacyFolder(legacy), assistant, config, lambda: None)
    with MigrationStore.begin(store, config.as_dict(), migration.scopes) as opened:
        migration.run(opened)
        if wait:
            opened.wait_idle(60)
    return migration.report


def memory_of(memory: MemoryPipeline, user_id: str = "tom", assistant_id: str = ASSISTANT) -> Json:
    """Return all that a store tells of a user, but for what depends on the clock and on the store."""
    sessions = memory.sessions(user_id, assistant_id=assistant_id, limit=1000)
    pages = [page for page in all_pages(memory) if (page.user_id, page.assistant_id) == (user_id, assistant_id)]
    facts = {
        about: [asdict(one) for one in memory.knowledge(user_id, assistant_id=assistant_id, about=about, limit=1000)]
        for about in ("user", "assistant")
    }
    return {
        "pages": [asdict(page) for page in pages],
        "sessions": sorted(
            [*map(str, (one.summary, one.timestamp, one.keywords, one.visits)), *one.page_ids] for one in sessions
        ),
        "profile": asdict(memory.profile(user_id, assistant_id=assistant_id)),
        "facts": facts,
        "vectors": memory.stats().vectors,
    }
