from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.stages.facts import HEADINGS, facts, merged_profile
from mos_pipeline.stages.tasks import PageFact, PageText
from tests.test_statements import NOT_TOLD, TOLD


def said(*texts: str, day: str = "2024-05-01") -> list[PageText]:
    return [PageText(text, "I am not the user, I live in Rome.", f"{day} 10:00:00") for text in texts]


def lines(profile: str) -> list[str]:
    return [line for line in profile.splitlines() if line.startswith("- ")]


# facts


def test_the_most_telling_statements_are_the_facts_in_the_pages_order() -> None:
    sides = ["I'm vegan.", "", "I bought a bowl in Lisbon with Anna.", "I baked bread.", "I have 2 dogs, Rex and Ida."]
    assert facts(sides, 2) == [PageFact(sides[2], 2), PageFact(sides[4], 4)]
    assert [fact.page for fact in facts(sides, 9)] == [0, 2, 3, 4]
    assert facts(sides, 0) == facts([], 3) == []


def test_a_fact_that_is_said_twice_is_one_said_last() -> None:
    assert facts(["I adopted a beagle.", "I bake bread.", "I have adopted a beagle!"], 9) == [
        PageFact("I have adopted a beagle!", 2)
    ]


# the profile


def test_a_profile_is_what_was_said_with_its_day_under_headings() -> None:
    pages = said("Hi! I love sourdough bread. How are you?", "I'm planning a trip to Ghent.", "I'm vegan.")
    assert merged_profile("", pages, 24) == (
        "Is and has\n- I'm vegan. (2024-05-01)\n"
        "Likes\n- I love sourdough bread. (2024-05-01)\n"
        "Plans\n- I'm planning a trip to Ghent. (2024-05-01)"
    )


def test_pages_that_tell_nothing_leave_the_profile_as_it_is() -> None:
    profile = merged_profile("", said("I love sourdough bread."), 24)
    assert merged_profile(profile, said("Good morning!", ""), 24) == profile
    assert merged_profile("", said("Good morning!"), 24) == ""


def test_what_is_said_again_moves_to_the_new_day() -> None:
    profile = merged_profile("", said("I love sourdough bread.", "I love the opera."), 24)
    assert lines(merged_profile(profile, said("I really love sourdough bread!", day="2024-06-01"), 24)) == [
        "- I love the opera. (2024-05-01)",
        "- I really love sourdough bread! (2024-06-01)",
    ]


def test_of_too_many_lines_the_newest_half_and_the_most_telling_others_stay() -> None:
    texts = ["I love green apples.", "I love tea.", "I love Ghent and Bruges.", "I love the opera.", "I love tulips."]
    profile = ""
    for day, text in enumerate(texts, 1):
        profile = merged_profile(profile, said(text, day=f"2024-05-0{day}"), 4)
    assert [line[2:-13] for line in lines(profile)] == [texts[0], *texts[2:]]


def test_a_text_of_another_hand_is_kept() -> None:
    other = "A cheerful baker.\nTrust: High (says so)\n- likes trains"
    profile = merged_profile(other, said("I'm vegan."), 4)
    assert profile == f"{other}\nIs and has\n- I'm vegan. (2024-05-01)"
    assert (
        merged_profile(profile, said("I love green tea."), 4) == f"{profile}\nLikes\n- I love green tea. (2024-05-01)"
    )


@pytest.mark.parametrize(
    ("timestamp", "shown"),
    [
        ("2024-05-01T10:00", " (2024-05-01)"),
        ("", ""),
        ("8 May (early)", " (8 May early)"),
        ("x" * 99, f" ({'x' * 24})"),
    ],
)
def test_a_day_is_shown_as_far_as_it_is_known(timestamp: str, shown: str) -> None:
    profile = merged_profile("", [PageText("I'm vegan.", "", timestamp)], 4)
    assert profile == f"Is and has\n- I'm vegan.{shown}"
    assert merged_profile(profile, [], 4) == profile


pages = st.lists(
    st.builds(
        PageText,
        st.lists(st.sampled_from([*(text for text, _ in TOLD), *NOT_TOLD]), max_size=4).map(" ".join),
        st.text(max_size=20),
        st.sampled_from(["2024-05-01 10:00:00", "2023-01-31", "", "noon (sharp)"]),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(pages, max_size=5), st.integers(1, 9))
def test_laws_of_a_profile(calls: list[list[PageText]], limit: int) -> None:
    profile, everything = "", ""
    for new in calls:
        everything += " ".join(page.user_input for page in new)
        again = merged_profile(profile, new, limit)
        assert again == merged_profile(profile, new, limit)
        profile = again
        assert len(lines(profile)) <= limit
        assert merged_profile(profile, [], limit) == profile
        assert len(set(profile.splitlines())) == len(profile.splitlines())
    for line in profile.splitlines():
        text = line.removeprefix("- ").rsplit(" (", 1)[0]
        assert line in HEADINGS.values() or text in everything.replace("’", "'")
