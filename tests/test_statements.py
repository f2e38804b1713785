from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.stages.statements import KINDS, Statement, key_of, statements

TOLD = [
    ("I adopted a beagle named Rex.", "done"),
    ("Last Friday I went to a council meeting for adoption.", "done"),
    ("We explored the coast up in the Pacific Northwest.", "done"),
    ("I've been learning the cello since March.", "done"),
    ("I used to go horseback riding with my dad.", "done"),
    ("My sister moved to Lisbon.", "done"),
    ("I'm allergic to most reptiles.", "is"),
    ("I'm vegan.", "is"),
    ("I am from Ghent, in Belgium.", "is"),
    ("I work as a banker in Vienna.", "is"),
    ("I have two brothers and a dog.", "is"),
    ("My name is Ada Lovelace.", "is"),
    ("I'm learning German now - tough but fun.", "is"),
    ("I really love sourdough bread.", "likes"),
    ("I’m a huge fan of Lord of the Rings!", "likes"),
    ("My favorite book is Harry Potter.", "likes"),
    ("I can do it, and I enjoy curling up with a good book.", "likes"),
    ("I'm planning a trip to the East Coast.", "plans"),
    ("I want to be a nurse in a hospital.", "plans"),
    ("I'd love to visit the Cliffs of Moher.", "plans"),
    ("Next month, I'm off to Ireland for a semester.", "plans"),
    ("My dream is to open a bakery.", "plans"),
]
NOT_TOLD = [
    "",
    "Did I tell the story of my beagle Rex?",
    "I adopted a beagle named Rex, did you hear?",
    "I love your painting of the beagle!",
    "I'm so glad to see you again.",
    "I hope the weekend in Paris goes well.",
    "I think Paris is the capital of France.",
    "If I adopted a beagle, the cat would leave.",
    "I would adopt a beagle named Rex.",
    "I might visit Paris in spring.",
    "I wish I lived in Paris near the river.",
    "Thanks, I got the recipe for the bread.",
    "I have a question about beagles.",
    "I'd love to hear more about the beagle.",
    "I love it, the bread and the butter.",
    "I can't wait for the concert, I bought tickets.",
    '"I adopted a beagle named Rex," said Anna.',
    "Anna adopted a beagle named Rex.",
    "The photo I took shows a beagle named Rex.",
    "She said I adopted a beagle named Rex.",
    "Good morning!",
    "I had to go there.",
    "I did it.",
    "We want to find the probability of drawing two aces.",
    "I've got my user model set up like this:",
    "SELECT my_id FROM I WHERE We = 1;",
    "Ich habe einen Beagle namens Rex adoptiert.",
    "我昨天领养了一只小狗。",
    "I baked " + "a loaf of bread and " * 20 + "a cake.",
]


@pytest.mark.parametrize(("text", "kind"), TOLD)
def test_what_somebody_says_of_oneself_is_told_with_its_kind(text: str, kind: str) -> None:
    (found,) = statements(text)
    assert (found.text, found.kind) == (text.replace("’", "'"), kind)


@pytest.mark.parametrize("text", NOT_TOLD)
def test_talk_is_not(text: str) -> None:
    assert statements(text) == []


def test_statements_come_in_order_without_their_openings() -> None:
    side = "Hey Mel! Oh wow, I adopted a beagle named Rex. Isn't that great? And my sister moved to Lisbon. Bye!"
    assert [found.text for found in statements(side)] == [
        "I adopted a beagle named Rex.",
        "And my sister moved to Lisbon.",
    ]


def test_the_caption_of_an_image_says_nothing_of_the_speaker() -> None:
    assert statements("Look! (image: a photo. I adopted a beagle named Rex.)") == []


def test_names_and_numbers_tell_more_and_pointing_tells_less() -> None:
    (plain,), (named,), (pointing,) = map(
        statements,
        ["I adopted a small dog.", "I adopted Rex, dog 2, in Ghent.", "I adopted this small dog with it."],
    )
    assert pointing.weight < plain.weight < named.weight


def test_equal_statements_may_differ_in_form() -> None:
    one, other = Statement("I love hiking!", "likes", 1.0), Statement("I really love hikes.", "likes", 2.0)
    assert key_of(one) == key_of(other)
    assert key_of(one) != key_of(one._replace(kind="done"))


pieces = st.lists(st.sampled_from([*(text for text, _ in TOLD), *NOT_TOLD, "\n", "  ", "..."]) | st.text(max_size=40))


@given(pieces)
def test_every_statement_stands_in_the_text(parts: list[str]) -> None:
    side = " ".join(parts)
    for found in statements(side):
        assert found.text in side.replace("’", "'")
        assert found.kind in KINDS
        assert found.weight > 0


@pytest.mark.parametrize(
    "text", ["I " * 50_000, "I've " * 20_000, "my my my " * 20_000, "I'm really really " * 9000, "My a-'a " * 10_000]
)
def test_no_text_keeps_it_long(text: str) -> None:
    assert statements(text) == []
