"""Whatever a model says, what comes of it fits what was asked, or is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mos_pipeline.stages import answers, prompts
from mos_pipeline.stages.answers import Mended, UnusableError, parsed
from mos_pipeline.stages.scripts import strange_script
from mos_pipeline.stages.tasks import PageText, Previous

texts = st.text(max_size=30)
pages_of = st.lists(st.builds(PageText, texts, texts, texts), min_size=1, max_size=12)
scalars = st.none() | st.booleans() | st.integers(-3, 15) | st.floats(allow_nan=False) | texts
NAMES = ["pages", "page", "chains", "first", "overview", "topics", "content", "profile", "user", "assistant", "fact"]
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(NAMES), inner), max_leaves=15
)


def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What should be there, and now and then something else."""
    return st.integers(0, 30).flatmap(lambda dice: anything if dice == 0 else value)


def shaped(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values by a schema, most of the time."""
    kind = schema["type"]
    if kind == "object":
        fields = {name: mostly(shaped(inner)) for name, inner in schema["properties"].items()}
        return st.fixed_dictionaries(fields)
    if kind == "array":
        return st.lists(shaped(schema["items"]), max_size=12)
    return {"string": texts, "boolean": st.booleans(), "integer": st.integers(-1, 12)}[kind]


ONE = [PageText("a", "b", "c")]
CONTINUITY = shaped(prompts.ask_continuity(ONE, None, 100).schema)
TOPICS = shaped(prompts.ask_topics(ONE, 100).schema)
KNOWLEDGE = shaped(prompts.ask_knowledge(ONE, 100).schema)


@given(pages_of, CONTINUITY, st.booleans())
def test_continuity_is_told_of_every_page_or_refused(pages: list[PageText], answer: Any, first: bool) -> None:
    previous = None if first else Previous(pages[0], np.zeros(2, np.float32), "so far")
    try:
        found = answers.read_continuity(answer, pages, previous, Mended())
    except UnusableError:
        return
    assert len(found.continues) == len(found.overviews) == len(pages)
    assert all(type(continues) is bool for continues in found.continues)
    assert all(0 < len(overview) <= answers.OVERVIEW_CHARS for overview in found.overviews)
    assert not (first and found.continues[0])


@given(pages_of, TOPICS)
def test_every_page_is_in_exactly_one_topic_or_all_are_refused(pages: list[PageText], answer: Any) -> None:
    most = prompts.most_topics(len(pages))
    try:
        found = answers.read_topics(answer, pages, most, Mended())
    except UnusableError:
        return
    assert 1 <= len(found) <= most
    assert sorted(page for topic in found for page in topic.pages) == list(range(len(pages)))
    for topic in found:
        assert topic.pages == sorted(topic.pages)
        assert 0 < len(topic.content) <= answers.CONTENT_CHARS
        assert len(topic.keywords) <= answers.KEYWORDS
        assert all(0 < len(word) <= answers.KEYWORD_CHARS for word in topic.keywords)


@given(pages_of, KNOWLEDGE)
def test_facts_belong_to_pages_and_are_not_too_many(pages: list[PageText], answer: Any) -> None:
    try:
        found = answers.read_knowledge(answer, pages, (3, 2))
    except UnusableError:
        return
    assert len(found.user) <= 3
    assert len(found.assistant) <= 2
    for fact in [*found.user, *found.assistant]:
        assert 0 <= fact.page < len(pages)
        assert 0 < len(fact.text) <= answers.FACT_CHARS
        assert fact.text.lower() != "none"


@given(anything, texts)
def test_a_profile_is_a_new_one_or_the_old_one(answer: Any, old: str) -> None:
    if not isinstance(answer, dict):
        return
    try:
        found = answers.read_profile(answer, old, [])
    except UnusableError:
        return
    assert found == old or len(found) >= answers.SHORTEST_PROFILE


@given(st.text())
def test_any_text_is_an_object_or_refused(text: str) -> None:
    try:
        assert isinstance(parsed(text, Mended()), dict)
    except UnusableError as error:
        assert str(error)


@example({"<think>": None}, "")
@example({"a": "<think>", "</think>": "b"}, "so")
@given(st.dictionaries(texts, scalars), texts.filter(lambda text: "{" not in text and "<think" not in text))
def test_an_object_is_found_among_thoughts_fences_and_talk(answer: dict[str, Any], around: str) -> None:
    mended = Mended()
    told = json.dumps(answer)
    for text in (
        told,
        f"<think>{around} {{}} </think>{told}",
        f"{around}</think>\n{told}",
        f"```json\n{told}\n```",
        f"{around.replace('</think>', '')} {told}",
        f"{told} {around}",
    ):
        assert parsed(text, mended) == answer
    assert not mended.yes


@pytest.mark.parametrize(
    "text",
    [
        "{'profile': 'fond of dogs, and of cats'}",
        '{"profile": "fond of dogs, and of cats",}',
        '{"profile": "fond of dogs, and of cats" // really\n}',
        '```\n{profile: "fond of dogs, and of cats"}\n``` That is all.',
    ],
)
def test_small_faults_are_mended(text: str) -> None:
    mended = Mended()
    assert parsed(text, mended) == {"profile": "fond of dogs, and of cats"}
    assert mended.yes


ANSWER = json.dumps({"profile": "fond of dogs", "user": [{"fact": "f", "page": 0}, {"fact": "g", "page": 1}]})


@pytest.mark.parametrize("length", range(len(ANSWER)))
def test_what_breaks_off_is_never_mended(length: int) -> None:
    with pytest.raises(UnusableError, match=r"breaks off|no JSON object"):
        parsed(ANSWER[:length], Mended())


@pytest.mark.parametrize("text", ["<think>is it {}", "so <think> {} or", '<think>{"a": 1}'])
def test_thoughts_are_no_answer(text: str) -> None:
    with pytest.raises(UnusableError, match="no JSON object"):
        parsed(text, Mended())


def test_pages_that_topics_forget_or_name_twice_have_one_all_the_same() -> None:
    topics = [
        {"theme": "a", "keywords": ["x", " x ", 3, ""], "content": "first", "pages": [0, 1]},
        {"theme": "b", "keywords": [], "content": "second", "pages": [1, "4"]},
        {"theme": "c", "keywords": [], "content": "third", "pages": [4]},
    ]
    mended = Mended()
    found = answers.read_topics({"topics": topics}, ONE * 6, 4, mended)
    assert [topic.pages for topic in found] == [[0, 1, 2], [3, 4, 5]]
    assert found[0].keywords == ["x"]
    assert mended.yes


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({}, "'chains' is missing"),
        ({"chains": {}}, "'chains' is no array"),
        ({"chains": [3]}, "something else"),
        ({"chains": [{"first": 0, "last": 1, "overview": "x"}]}, "'continues_before' is missing"),
        ({"continues_before": 1, "chains": [{"first": 0, "last": 1, "overview": "x"}]}, "neither true nor false"),
        ({"chains": [{"first": 0, "last": 2, "overview": "x"}]}, "2 is no page's number; they go from 0 to 1"),
        ({"chains": [{"first": True, "last": 1, "overview": "x"}]}, "True is no page's number"),
        ({"chains": [{"first": 0, "last": 1, "overview": " "}]}, "'overview' is empty"),
        ({"chains": [{"first": 1, "last": 1, "overview": "x"}]}, "pages are in no chain: [0]"),
        ({"chains": []}, "pages are in no chain: [0, 1]"),
    ],
)
def test_a_complaint_says_what_was_wrong(answer: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UnusableError) as refused:
        answers.read_continuity(answer, ONE * 2, None, Mended())
    assert complaint in str(refused.value)


def test_chains_that_share_pages_are_parted() -> None:
    chains = [
        {"first": 3, "last": 5, "overview": "third"},
        {"first": "0", "last": 3, "overview": "first"},
        {"first": 2, "last": 3, "overview": "second"},
    ]
    mended = Mended()
    answer = {"continues_before": "true", "chains": chains}
    previous = Previous(ONE[0], np.zeros(2, np.float32), "so far")
    found = answers.read_continuity(answer, ONE * 6, previous, mended)
    assert found.continues == [True, True, False, False, True, True]
    assert found.overviews == ["first", "first", "second", "third", "third", "third"]
    assert mended.yes


def test_texts_are_cleaned() -> None:
    answer = {"overview": "a\x00b \ud800 c\n\n  d"}
    assert answers.read_overview(answer, ONE[0], "") == "a b c d"
    lines = "Openness: High, travels\nOrder: Low, forgets keys\x07"
    assert answers.read_profile({"profile": lines}, "", ONE) == lines.rstrip("\x07")


ENGLISH = "I adopted a beagle named Rex, and he loves the harbour."
CHINESE = "我领养了一只名叫雷克斯的比格犬，它很喜欢港口，我们每天都去散步。"


@pytest.mark.parametrize(
    ("answer", "pages", "script"),
    [
        (CHINESE, ENGLISH, "CJK"),
        ("Собака по имени Рекс любит гавань", ENGLISH, "CYRILLIC"),
        (ENGLISH, CHINESE * 5, "LATIN"),
        (ENGLISH, ENGLISH, ""),
        (CHINESE, CHINESE, ""),
        (CHINESE, f"{ENGLISH} 比格犬 {ENGLISH}", ""),
        (f"{ENGLISH} 比格犬", ENGLISH, ""),
        ("比格犬", ENGLISH, ""),
        (CHINESE, "ok", ""),
    ],
)
def test_a_strange_script_is_told(answer: str, pages: str, script: str) -> None:
    assert strange_script([answer], [pages]) == script
