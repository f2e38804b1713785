"""What is too much for one answer is asked in parts, and that is found out once."""

from __future__ import annotations

import asyncio
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.stages import portions
from mos_pipeline.stages.answers import Mended, read_continuity
from mos_pipeline.stages.caller import UnansweredError
from mos_pipeline.stages.parts import joined_facts, joined_topics
from mos_pipeline.stages.portions import Portions
from mos_pipeline.stages.prompts import INDIVISIBLE_PAGES, most_facts, most_topics
from mos_pipeline.stages.tasks import Knowledge, PageFact, PageText, Topic
from mos_pipeline.testing import FakeOpenAI, Reply, replies
from tests.llm.bench import Bench, batch, promotion
from tests.support import WORDS, page_text

pytestmark = pytest.mark.usefixtures("impatient")

MANY = 40
PAGES = [page_text(number) for number in range(MANY)]


def parts_of(portions: Portions, pages: int, takes: int, *, reached: bool = True) -> tuple[list[Any], int]:
    """Return the parts that are answered where no more than ``takes`` pages are, and how often was asked."""
    times = 0

    async def ask(begin: int, end: int) -> tuple[int, int]:
        nonlocal times
        times += 1
        if end - begin > takes:
            raise UnansweredError("too much", reached=reached)
        return begin, end

    return asyncio.run(portions.ask(pages, ask)), times


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5), st.integers(INDIVISIBLE_PAGES, 200))
def test_all_pages_are_asked_about_once_and_in_order(several: list[int], takes: int) -> None:
    portions = Portions()
    for pages in several:
        parts, times = parts_of(portions, pages, takes)
        assert [parts[0][0], *(end for _, end in parts)] == [0, *(begin for begin, _ in parts[1:]), pages]
        assert times <= len(parts) + 8


def test_what_was_too_much_is_not_tried_again_soon() -> None:
    portions = Portions()
    parts, times = parts_of(portions, 72, 20)
    assert (parts, times) == ([(0, 18), (18, 36), (36, 54), (54, 72)], 6)
    assert parts_of(portions, 36, 20) == ([(0, 18), (18, 36)], 2)
    assert parts_of(portions, 36, 99) == ([(0, 18), (18, 36)], 2)
    assert parts_of(portions, 36, 99) == ([(0, 36)], 1)  # by and by it is


def test_what_is_not_answered_in_the_smallest_part_is_not_answered() -> None:
    with pytest.raises(UnansweredError):
        parts_of(Portions(), 72, INDIVISIBLE_PAGES - 1)


def test_where_the_endpoint_does_not_answer_parts_would_not_help() -> None:
    portions = Portions()
    with pytest.raises(UnansweredError):
        parts_of(portions, 72, 20, reached=False)
    assert parts_of(portions, 72, 72) == ([(0, 72)], 1)


def test_parts_are_joined() -> None:
    topics = [Topic("a", [], "a", [0, 2]), Topic("b", [], "b", [1])]
    joined = joined_topics([(0, topics), (3, topics[:1])])
    assert [topic.pages for topic in joined] == [[0, 2], [1], [3, 5]]
    one, other = Knowledge([PageFact("x", 1)], []), Knowledge([PageFact("x", 0), PageFact("y", 2)], [PageFact("z", 0)])
    assert joined_facts([(0, one), (9, other)]) == Knowledge([PageFact("x", 1), PageFact("y", 11)], [PageFact("z", 9)])


def short(chars: int) -> Reply:
    """An endpoint whose answers end after so many characters."""
    return Reply(changed=lambda text: text[:chars])


def check_told_of(result: dict[str, Any], pages: int) -> None:
    assert result["owed"] == []
    assert sorted(page for topic in result["topics"] for page in topic["pages"]) == list(range(pages))
    assert all(topic["content"].startswith("They spoke of this: ") for topic in result["topics"])
    assert len(result["continues"]) == len(result["overviews"]) == pages
    assert all("Then: " in overview for overview in result["overviews"])


def test_an_answer_that_breaks_off_is_asked_for_in_halves(fake: FakeOpenAI) -> None:
    for task in ("continuity", "topics", "knowledge"):
        fake.script.add(short(2600), times=None, task=task)
    with Bench(fake) as bench:
        check_told_of(bench.ask(batch(PAGES)), MANY)
        told = bench.ask(promotion(PAGES))
        assert told["owed"] == []
        assert {fact["page"] for fact in told["user"]} > {0, MANY // 2}
        calls = len([request for request in fake.requests if request.task == "topics"])
        check_told_of(bench.ask(batch(PAGES)), MANY)
        topics = [request.asked["pages"] for request in fake.requests if request.task == "topics"]
    assert len(topics[0]) == MANY
    assert [len(pages) for pages in topics[calls:]] == [MANY // 4] * 4  # it is known by now
    assert not [task for task, tally in bench.meter.tallies.items() if tally.fallbacks]


def test_a_part_goes_on_where_the_one_before_has_ended(fake: FakeOpenAI) -> None:
    with Bench(fake) as bench:
        whole = bench.ask(batch(PAGES))
        assert [request.task for request in fake.requests].count("continuity") == 1
        fake.script.add(replies.truncated(), task="continuity")
        parted = bench.ask(batch(PAGES))
    assert parted["continues"] == whole["continues"]
    assert parted["overviews"][-1] == whole["overviews"][-1]
    first, last = [request.asked for request in fake.requests if request.task == "continuity"][-2:]
    assert first["before"] is None
    assert last["before"]["user"] == PAGES[MANY // 2 - 1][0]
    assert last["overview_so_far"] == parted["overviews"][MANY // 2 - 1]


def test_a_profile_is_made_from_one_part_after_the_other(fake: FakeOpenAI) -> None:
    fake.script.add(replies.truncated(), task="profile")
    with Bench(fake) as bench:
        told = bench.ask(promotion(PAGES))
    first, last = [request.asked for request in fake.requests if request.task == "profile"][-2:]
    assert first["profile"] == ""
    assert PAGES[0][0][:40] in last["profile"]
    assert PAGES[-1][0][:40] in told["profile"]


def test_a_call_for_many_pages_that_takes_too_long_is_made_for_fewer(fake: FakeOpenAI) -> None:
    with Bench(fake, timeout_s=1.0) as bench:
        fake.script.add(replies.hang(), task="topics")
        check_told_of(bench.ask(batch(PAGES)), MANY)
    sizes = [len(request.asked["pages"]) for request in fake.requests if request.task == "topics"]
    assert sizes == [MANY, MANY // 2, MANY // 2]


def test_a_prompt_that_is_refused_for_its_length_is_asked_in_parts(fake: FakeOpenAI) -> None:
    with Bench(fake) as bench:
        check_told_of(bench.ask(batch(PAGES[:9])), 9)  # so that the way to ask for JSON is known
        fake.script.add(replies.status(400), task="topics")
        check_told_of(bench.ask(batch(PAGES)), MANY)


def test_what_stands_in_for_many_pages_tells_as_much_as_for_few(fake: FakeOpenAI) -> None:
    pairs = list(permutations(WORDS, 2))[:: len(WORDS) // 2][:60]
    fake.script.add(replies.status(404), times=None)
    with Bench(fake) as bench:
        result = bench.ask(batch(PAGES))
        told = bench.ask(promotion([(f"I adopted a {one}, and my sister has a {other}.", "") for one, other in pairs]))
    assert result["owed"] == ["continuity", "topics"]
    assert sorted(page for topic in result["topics"] for page in topic["pages"]) == list(range(MANY))
    assert len(result["topics"]) >= 5
    assert len(told["user"]) > 3  # so many are taken of one promotion's pages


def test_what_stands_in_page_by_page_is_counted_where_it_was_asked(fake: FakeOpenAI) -> None:
    with Bench(fake, plan="per_page") as bench:
        fake.script.add(replies.status(404), times=None, task="overview")
        assert bench.ask(batch())["owed"] == ["continuity"]
    assert (bench.meter.of("overview").fallbacks, bench.meter.of("continuity").fallbacks) == (1, 0)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.booleans())
def test_chains_are_read_as_they_are_told(sizes: list[int], first: bool) -> None:
    starts = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
    chains = [{"first": begin, "last": end - 1, "overview": f"from {begin}"} for begin, end in pairwise(starts)]
    mended = Mended()
    answer = {"continues_before": first, "chains": chains}
    found = read_continuity(answer, [PageText("a", "b", "c")] * starts[-1], None, mended)
    assert not mended.yes
    assert [number for number, goes_on in enumerate(found.continues) if not goes_on] == starts[:-1]
    told = [f"from {begin}" for begin, size in zip(starts[:-1], sizes, strict=True) for _ in range(size)]
    assert found.overviews == told


def test_more_pages_may_have_more_topics_and_facts() -> None:
    assert [most_topics(pages) for pages in (1, 9, 10, 90)] == [2, 2, 4, 20]
    assert [most_facts(pages) for pages in (1, 36, 37, 150)] == [(12, 4), (12, 4), (24, 8), (60, 20)]
    assert portions.TRUST_AFTER > 1
