"""What ``retrieve`` is told: which pages, how many, in which order, at what length; each against all pages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import Hit, InputError, MemoryPipeline, Page, Retrieved
from mos_pipeline.config import Retrieval
from mos_pipeline.memory.selection import CHARS_A_TOKEN, TOKENS_A_PAGE
from mos_pipeline.store.reading import PageFrame, PageReader
from mos_pipeline.store.segments import FrameAddress
from tests.faults.common import PATIENCE_S
from tests.support import all_pages, open_fake, page_text

PAGES = 60
SETTINGS: dict[str, Any] = {"short_term__capacity": 4, "retrieval__timeout_s": PATIENCE_S}
QUERY = "beagle garden violin"
FIRST = datetime(2026, 1, 1, 10, 0, 0)
ZONES = ("", "", "", "+02:00", "Z")
UNREADABLE = {11: "yesterday", 23: "", 40: "2026-13-45"}


def timestamp_of(number: int) -> str:
    when = FIRST + timedelta(hours=7 * ((number * 37) % PAGES))  # not the order of acceptance
    return UNREADABLE.get(number, when.isoformat(sep=" ") + ZONES[number % len(ZONES)])


def metadata_of(number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"channel": ("web", "mail", "app")[number % 3], "tags": ["a"] * (number % 2)}
    return found | ({"starred": None} if number % 4 == 0 else {})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    with open_fake(path, **SETTINGS) as memory:
        for number in range(PAGES):
            stamp, metadata = timestamp_of(number), metadata_of(number)
            memory.add("tom", *page_text(number), timestamp=stamp, metadata=metadata)
            memory.add("ann", *page_text(PAGES + number), timestamp=stamp, metadata=metadata)
        memory.wait_idle(PATIENCE_S)
    return path


@pytest.fixture
def memory(store: Path) -> Iterator[MemoryPipeline]:
    with open_fake(store, **SETTINGS) as memory:
        yield memory


def found_ids(found: Retrieved) -> list[str]:
    return [hit.page.page_id for hit in found.pages]


def moment_of(page: Page) -> datetime | None:
    try:
        when = datetime.fromisoformat(page.timestamp)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def between(page: Page, low: datetime | None, high: datetime | None) -> bool:
    when = moment_of(page)
    return when is not None and (low is None or when >= low) and (high is None or when <= high)


LOW, HIGH = (FIRST.replace(tzinfo=UTC) + timedelta(hours=hours) for hours in (70, 266))  # each is a page's own
FILTERS: list[tuple[dict[str, Any], Callable[[Page], bool]]] = [
    ({}, lambda _: True),
    ({"since": LOW}, lambda page: between(page, LOW, None)),
    ({"until": HIGH}, lambda page: between(page, None, HIGH)),
    ({"since": LOW, "until": HIGH}, lambda page: between(page, LOW, HIGH)),
    ({"since": "2026-01-04 08:00:00", "until": "2026-01-12T14:00:00+02:00"}, lambda page: between(page, LOW, HIGH)),
    ({"since": LOW.replace(tzinfo=None)}, lambda page: between(page, LOW, None)),
    ({"since": "2026-01-04"}, lambda page: between(page, datetime(2026, 1, 4, tzinfo=UTC), None)),
    ({"since": HIGH, "until": LOW}, lambda _: False),
    ({"where": {}}, lambda _: True),
    ({"where": {"channel": "web"}}, lambda page: page.metadata["channel"] == "web"),
    (
        {"where": {"channel": "web", "tags": ["a"]}},
        lambda page: (
            page.metadata == {"channel": "web", "tags": ["a"]}
            or (page.metadata["channel"] == "web" and page.metadata["tags"] == ["a"])
        ),
    ),
    ({"where": {"starred": None}}, lambda page: "starred" in page.metadata),
    ({"where": {"channel": "fax"}}, lambda _: False),
    (
        {"where": {"channel": "app"}, "since": LOW},
        lambda page: page.metadata["channel"] == "app" and between(page, LOW, None),
    ),
]


def test_exactly_the_pages_that_pass_are_found(memory: MemoryPipeline) -> None:
    ranked = found_ids(memory.retrieve("tom", QUERY, k=1000))
    mine = {page.page_id: page for page in all_pages(memory, "tom")}
    assert sorted(ranked) == sorted(mine)
    for named, passes in FILTERS:
        wanted = [page_id for page_id in ranked if passes(mine[page_id])]
        for k in (1, 3, 10, 1000):
            assert found_ids(memory.retrieve("tom", QUERY, k=k, **named)) == wanted[:k], named
    assert found_ids(memory.retrieve("tom", QUERY)) == ranked[:7]


def chosen_by(ranked: list[Hit], tokens: int, k: int | None) -> list[str]:
    """What fits, best first, by the documented estimate."""
    chosen, left, overviews = list[str](), tokens, {""}
    for hit in ranked:
        texts = [hit.page.user_input, hit.page.agent_response, *({hit.overview} - overviews)]
        cost = TOKENS_A_PAGE + sum(-(-len(text) // CHARS_A_TOKEN) for text in texts)
        if cost <= left and len(chosen) != k:
            left -= cost
            chosen.append(hit.page.page_id)
            overviews.add(hit.overview)
    return chosen


def test_the_budget_holds_and_takes_the_best_evidence_first(memory: MemoryPipeline) -> None:
    ranked = memory.retrieve("tom", QUERY, k=1000).pages
    for tokens, k in product((1, 30, 75, 200, 1000, 100_000), (None, 3)):
        found = memory.retrieve("tom", QUERY, k=k, max_tokens=tokens)
        assert found_ids(found) == chosen_by(ranked, tokens, k)
        assert found.overviews == [text for text in dict.fromkeys(hit.overview for hit in found.pages) if text]
    assert len(chosen_by(ranked, 1000, None)) > 5


def test_in_order_of_time_it_is_the_same_pages_oldest_first(memory: MemoryPipeline) -> None:
    place = {page.page_id: at for at, page in enumerate(all_pages(memory, "tom"))}
    wishes: list[dict[str, Any]] = [{"k": 9}, {"k": 1000}, {"max_tokens": 300}, {"where": {"channel": "app"}, "k": 5}]
    for named in wishes:
        best = memory.retrieve("tom", QUERY, **named).pages
        assert [hit.score for hit in best] == sorted((hit.score for hit in best), reverse=True)
        in_time = memory.retrieve("tom", QUERY, order="time", **named).pages
        assert in_time == sorted(best, key=lambda hit: place[hit.page.page_id])


def test_the_parts_make_up_the_score(memory: MemoryPipeline) -> None:
    weights = Retrieval()
    for query in (QUERY, "number17", "nothingofthekind", "uncle tunnel concert letter"):
        hits = memory.retrieve("tom", query, k=1000, explain=True).pages
        for hit in hits:
            assert hit.parts is not None
            assert (hit.parts.dense, hit.parts.words) == (hit.dense, hit.words)
            score = weights.dense_weight * (hit.parts.dense or 0.0)
            for name in ("words", "window", "sitting"):
                share = getattr(hit.parts, name) / hit.parts.limit if hit.parts.limit else 0.0
                assert 0.0 <= share <= 1.0
                score += getattr(weights, f"{name}_weight") * share
            assert hit.score == pytest.approx(score, abs=1e-6)
    assert all(hit.parts is None for hit in memory.retrieve("tom", QUERY).pages)


def test_hits_tell_the_session_their_page_is_in(memory: MemoryPipeline) -> None:
    sessions = {page_id: one.session_id for one in memory.sessions("tom", limit=1000) for page_id in one.page_ids}
    hits = memory.retrieve("tom", QUERY, k=1000).pages
    assert {hit.page.page_id: hit.session_id for hit in hits} == {
        page.page_id: sessions.get(page.page_id) for page in all_pages(memory, "tom")
    }


def test_the_two_level_search_goes_by_vectors_into_the_nearest_sessions(store: Path) -> None:
    with open_fake(store, **SETTINGS, retrieval__method="two-level") as memory:
        hits = memory.retrieve("tom", QUERY, k=1000).pages
        assert hits
        assert [hit.score for hit in hits] == [hit.dense for hit in hits]
        assert all(hit.dense is not None and hit.dense >= 0.1 for hit in hits)
        assert all(hit.session_id is not None for hit in hits)  # a page in short-term memory alone is not seen


WRONG: list[tuple[str, Any]] = [
    ("k", 0),
    ("k", -1),
    ("k", 2.5),
    ("k", True),
    ("k", "7"),
    ("max_tokens", 0),
    ("max_tokens", 1.5),
    ("since", "last week"),
    ("since", 20260101),
    ("until", "2026-02-30"),
    ("until", b"2026-01-01"),
    ("where", ["channel"]),
    ("where", {1: "web"}),
    ("where", {"channel": {"web"}}),
    ("order", "newest"),
    ("order", []),
    ("timeout", "soon"),
    ("timeout", float("nan")),
    ("query", None),
    ("user_id", ""),
    ("assistant_id", 7),
]


def test_an_argument_that_can_not_be_taken_is_named(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        for name, value in WRONG:
            arguments: dict[str, Any] = {"user_id": "tom", "query": QUERY} | {name: value}
            with pytest.raises(InputError, match=rf"\b{name}\b"):
                memory.retrieve(**arguments)


def test_filters_hold_without_vectors_too(tmp_path: Path) -> None:
    rng = random.Random(3)
    with open_fake(tmp_path, workers=False) as memory:
        for number in range(40):
            memory.add("tom", f"the beagle {number}", "", metadata={"n": rng.randrange(3)})
        found = memory.retrieve("tom", "beagle", k=1000, where={"n": 1})
        assert found.degraded
        assert sorted(found_ids(found)) == [
            page.page_id for page in all_pages(memory, "tom") if page.metadata["n"] == 1
        ]


@pytest.mark.parametrize("zone", ["UTC", "XXX8", "YYY-9"])
def test_a_page_without_a_timestamp_was_said_now_wherever_that_is(
    tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with open_fake(tmp_path, workers=False) as memory:
            memory.add("tom", "the beagle", "")
            hour = timedelta(hours=1)
            for now in (datetime.now(UTC), datetime.now().astimezone()):
                assert memory.retrieve("tom", "beagle", since=now - hour, until=now + hour).pages
                assert not memory.retrieve("tom", "beagle", since=now + hour).pages
                assert not memory.retrieve("tom", "beagle", until=now - hour).pages
    finally:
        monkeypatch.undo()
        time.tzset()


def test_metadata_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        memory.add("tom", "the beagle", "", metadata={"at": (1, {"deep": (2, 3)})})
        for same in ((1, {"deep": (2, 3)}), [1, {"deep": [2, 3]}]):
            assert memory.retrieve("tom", "beagle", where={"at": same}).pages


def test_a_filter_that_nothing_passes_unpacks_each_frame_a_few_times_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the ranking, neighbours come far from each other, and each costs its frame again."""
    unpacked, unpack = list[FrameAddress](), PageReader._unpack

    def counted(reader: PageReader, frame: PageFrame) -> list[bytes]:
        unpacked.append(frame.address)
        return unpack(reader, frame)

    with open_fake(tmp_path, store__text_cache_bytes=0, store__frame_pages=16, **SETTINGS) as memory:
        for number in range(1500):
            memory.add("tom", *page_text(number))
        memory.wait_idle(PATIENCE_S)
        monkeypatch.setattr(PageReader, "_unpack", counted)
        assert not memory.retrieve("tom", QUERY, where={"no": "such"}).pages
        assert len(unpacked) < 3 * len(set(unpacked))
