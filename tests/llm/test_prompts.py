"""What is sent: pages as data, and schemas that endpoints take strictly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.stages import prompts
from mos_pipeline.stages.prompts import Prompt
from mos_pipeline.stages.tasks import PageText, Previous

texts = st.text(st.characters() | st.sampled_from("\ud800\udfff"), max_size=40)  # chat exports hold lone surrogates
PAGES = [PageText("a", "b", "c")] * 3
pages_of = st.lists(st.builds(PageText, texts, texts, texts), min_size=1, max_size=10)


def all_of(pages: list[PageText], before: str = "before") -> Iterator[Prompt]:
    previous = Previous(PageText(before, "", "2024"), np.zeros(2, np.float32), before)
    yield prompts.ask_continuity(pages, None, 1000)
    yield prompts.ask_continuity(pages, previous, 1000)
    yield prompts.ask_continues(pages[0], previous, 1000)
    yield prompts.ask_overview(pages[0], before, 1000)
    yield prompts.ask_topics(pages, 1000)
    yield prompts.ask_profile(before, pages, 1000)
    yield prompts.ask_knowledge(pages, 1000)


@given(pages_of, texts)
def test_pages_are_data_whatever_they_say(pages: list[PageText], before: str) -> None:
    fixed = [prompt.messages[0] for prompt in all_of([PageText("", "", "")], "")]
    for prompt, instructions in zip(all_of(pages, before), fixed, strict=True):
        system, user = prompt.messages
        assert system == instructions, "nothing of the pages is among the instructions"
        assert user["role"] == "user"
        user["content"].encode()
        asked = json.loads(user["content"])
        assert asked["task"] == prompt.task
        assert asked["version"] == prompts.VERSION
        assert [page["page"] for page in asked["pages"]] == list(range(len(asked["pages"])))
        for page, told in zip(pages, asked["pages"], strict=False):
            assert told["user"] == prompts.clean(page.user_input)
            assert told["assistant"] == prompts.clean(page.agent_response)


def test_no_text_makes_a_prompt_long() -> None:
    """Whatever is long: what was migrated, or is the caller's own, as a timestamp is, was never bounded."""
    long = "x\ud800" * 500_000
    page = PageText(long, long, long)
    previous = Previous(page, np.zeros(2, np.float32), long)
    for prompt in (
        prompts.ask_continuity([page], previous, 1000),
        prompts.ask_continues(page, previous, 1000),
        prompts.ask_overview(page, long, 1000),
        prompts.ask_topics([page], 1000),
        prompts.ask_profile(long, [page], 1000),
        prompts.ask_knowledge([page], 1000),
    ):
        assert len(prompt.messages[1]["content"]) < 20_000
    profile = "\n".join(["- trait: High, reason"] * 500)
    assert json.loads(prompts.ask_profile(profile, [page], 1000).messages[1]["content"])["profile"] == profile


def objects_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if schema["type"] == "array":
        yield from objects_in(schema["items"])
    elif schema["type"] == "object":
        yield schema
        for inner in schema["properties"].values():
            yield from objects_in(inner)


def test_schemas_are_strict() -> None:
    for prompt in all_of([PageText("a", "b", "c")]):
        for found in objects_in(prompt.schema):
            assert found["additionalProperties"] is False
            assert found["required"] == list(found["properties"])
            assert set(found) == {"type", "properties", "required", "additionalProperties"}


def arrays_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for found in objects_in(schema):
        yield from (inner for inner in found["properties"].values() if inner["type"] == "array")


def test_schemas_leave_no_room_for_other_pages_nor_for_repeating_without_end() -> None:
    topics = prompts.ask_topics(PAGES, 100).schema["properties"]["topics"]
    assert topics["maxItems"] == prompts.most_topics(len(PAGES))
    numbers = topics["items"]["properties"]["pages"]
    assert (numbers["minItems"], numbers["maxItems"]) == (1, len(PAGES))
    assert numbers["items"]["enum"] == list(range(len(PAGES)))
    for prompt in (prompts.ask_continuity(PAGES, None, 100), prompts.ask_knowledge(PAGES, 100)):
        found = list(arrays_in(prompt.schema))
        assert found
        assert all(array["maxItems"] >= array["minItems"] for array in found)
        told = [inner for each in objects_in(prompt.schema) for inner in each["properties"].values()]
        assert all(inner["enum"] == list(range(len(PAGES))) for inner in told if inner["type"] == "integer")


@pytest.mark.parametrize(("pages", "topics"), [(1, 2), (9, 2), (10, 4), (18, 4), (19, 6)])
def test_topics_scale_with_pages(pages: int, topics: int) -> None:
    assert prompts.most_topics(pages) == topics
    asked = json.loads(prompts.ask_topics([PageText("a", "b", "c")] * pages, 100).messages[1]["content"])
    assert asked["most_topics"] == topics


@given(st.text(max_size=400), st.integers(16, 300))
def test_a_long_side_loses_its_middle(text: str, chars: int) -> None:
    told = prompts._cut(text, chars)
    assert told == text if len(text) <= chars else len(told) == chars + 5
    assert told[:12] == text[:12]
    assert told[-4:] == text[-4:]


def test_asking_again_shows_the_answer_and_the_complaint() -> None:
    prompt = prompts.ask_topics([PageText("a", "b", "c")], 100)
    second = prompts.again(prompt, "", "there is no JSON object in it")
    assert second.messages[:2] == prompt.messages
    assert second.messages[2] == {"role": "assistant", "content": "(no answer)"}
    assert second.messages[3]["content"].startswith("That can't be used: there is no JSON object in it. ")
    assert second.schema == prompt.schema
