"""What a model thinks aloud is no part of its answer, wherever a stream is split."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.answering.thoughts import ThoughtFilter, without_thoughts

OUTSIDE = re.compile(r"<think>.*?(?:</think>|\Z)|</think>", re.DOTALL | re.IGNORECASE | re.ASCII)

TAGS = ["<think>", "</think>", "<THINK>", "</Think>", "<", ">", "</", "<thin", "k>"]
FRAGMENTS = [*TAGS, "think", " ", "\n", "İ", "a", "b c"]
answers = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=20).map("".join)


def streamed(pieces: list[str]) -> str:
    filtered = ThoughtFilter()
    told = [filtered.feed(piece) for piece in pieces]
    return "".join([*told, filtered.end()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("Rex.", "Rex."),
        ("<think>The dog.</think>Rex.", "Rex."),
        ("<think>\nThe dog.\n</think>\n\nRex.\n", "Rex."),
        ("Rex<think>or not</think>, I'd say.", "Rex, I'd say."),
        ("<think>a</think>Rex<think>b</think>!", "Rex!"),
        ("<think>never ends", ""),
        ("Rex. <think>never ends", "Rex."),
        ("no opening tag</think>Rex.", "Rex."),
        ("<Think>a</THINK>Rex.", "Rex."),
        ("<think>a<think>b</think>Rex.", "Rex."),
        ("<think>a</think>Rex</think>.", "Rex."),
        ("1 < 2, <thinking> and <think", "1 < 2, <thinking> and <think"),
        (" spaces  inside ", "spaces  inside"),
    ],
)
def test_thoughts_are_left_out(text: str, expected: str) -> None:
    assert without_thoughts(text) == expected


@given(answers)
def test_a_whole_text_is_what_is_outside_of_thoughts(text: str) -> None:
    first = re.search(r"</?think>", text, re.IGNORECASE | re.ASCII)
    rest = text
    if first is not None and first.group().startswith("</"):
        rest = text[first.end() :]
    assert without_thoughts(text) == OUTSIDE.sub("", rest).strip()


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=20))
def test_streamed_in_any_pieces_the_text_is_the_same(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert streamed(pieces) == streamed(list(text)) == OUTSIDE.sub("", text).strip()


@given(answers)
def test_nothing_is_held_back_that_can_be_no_tag(text: str) -> None:
    """What has been given out is the whole, but for white space and the beginning of a tag at the end."""
    filtered = ThoughtFilter()
    told = filtered.feed(text)
    shown = OUTSIDE.sub("", text).strip()
    assert shown.startswith(told)
    rest = shown[len(told) :].strip().lower()
    assert "<think>".startswith(rest) or "</think>".startswith(rest)
