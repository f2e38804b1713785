"""Small faults of JSON are mended, all else is refused, and neither takes long."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.stages.answers import Mended, UnusableError, parsed
from mos_pipeline.stages.mending import NotMendedError, mended_json

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\"'“”\\{}[],:#/"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=4)


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers(), st.lists), max_size=3))
def test_what_needs_no_mending_is_read_as_json_reads_it(value: dict[str, Any]) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        try:
            assert mended_json(text) == value
        except NotMendedError:
            assert re.search(r"[\"'“\\]", "".join(value))  # a name with marks in it may look like its own end


@given(OBJECTS)
def test_each_small_fault_is_mended(value: dict[str, Any]) -> None:
    whole = json.dumps(value, ensure_ascii=False, indent=1)
    comma = re.compile(r"(?<=[^\[{,])(?=\n *[\]}])")
    for text in (
        whole,
        comma.sub(",", whole),
        whole.replace('"', "'"),
        re.sub(r'"([^"]*)"', "“\\1”", whole),
        re.sub(r"(?<=\n)", "// a remark\n", whole),
        re.sub(r"(?<=\n)", "/* a ** remark */", whole),
        f"{whole} and that is all",
    ):
        assert mended_json(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "he said "hi" to me", "b": 1}', {"a": 'he said "hi" to me', "b": 1}),
        ('{"a": "she said "yes", and left"}', {"a": 'she said "yes", and left'}),
        ('{"a": ["one "two" three", "four"]}', {"a": ['one "two" three', "four"]}),
        ("{'a': 'it's late'}", {"a": "it's late"}),
        ('{"a": "one\ntwo"}', {"a": "one\ntwo"}),
        ('{"a": "one"\n "b": ["x"\n "y"]}', {"a": "one", "b": ["x", "y"]}),
        ("{a: 1, b_2: [True, None, -1.5e3],, }", {"a": 1, "b_2": [True, None, -1500.0]}),
        (r'{"a": "x\"y\n\u00e9\ud83d\ude00\/\x", }', {"a": 'x"y\né😀/x'}),
        (r"{'a': 'x\'y'}", {"a": "x'y"}),
        ('{"a": "b" # why not\n}', {"a": "b"}),
    ],
)
def test_what_is_mended(text: str, value: Any) -> None:
    assert mended_json(text) == value


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"', '{"a":', '{"a": "b', '{"a": b}', "{1 2}", '{"a": "\\', "nan", "{/*", "[" * 17 + "]" * 17]
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(NotMendedError):
        mended_json(text)


PARTS = ['"', "'", "{", "}", "[", "]", ":", ",", "\\", "\n", " ", "a", "1", "-", ".", "/", "*", "#", "`", "“", "null"]
SAID = st.lists(st.sampled_from([*PARTS, '"a"', "\\u", "1e9", "9" * 5000, "true", "”", "\ud800"]), max_size=40)


@given(SAID.map("".join))
def test_any_text_is_an_object_or_refused(text: str) -> None:
    for said in (text, f"{{{text}}}", f'{{"a": {text}}}'):
        try:
            assert isinstance(parsed(said, Mended()), dict)
        except UnusableError as error:
            assert str(error)


def test_a_model_that_got_stuck_costs_no_time() -> None:
    """Of any two parts, repeated: that would take minutes each, if something were looked at again and again."""
    size = 30_000
    for parts in product(PARTS, PARTS):
        body = "".join(parts) * (size // len("".join(parts)))
        for text in (f"{{{body}}}", f'{{"a": "{body}"x}}'):
            for said in (text, text + "}" * text.count("{") + "]" * text.count("[")):
                try:
                    mended_json(said)
                except NotMendedError:
                    continue
