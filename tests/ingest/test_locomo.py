from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.ingest import SourceRecord, read_source
from mos_pipeline.ingest.locomo import normalised_time
from mos_pipeline.ingest.records import Draft

TIME = "1:56 pm on 8 May, 2023"


def turns(speakers: str, session: int = 1) -> list[dict[str, Any]]:
    """Turns of Ada (a) and Ben (b), in this order."""
    names = {"a": "Ada", "b": "Ben"}
    return [
        {"speaker": names[s], "dia_id": f"D{session}:{i}", "text": f"{s}{session}{i}"} for i, s in enumerate(speakers)
    ]


def sample(name: str = "talk", **sessions: Any) -> dict[str, Any]:
    return {"sample_id": name, "conversation": {"speaker_a": "Ada", "speaker_b": "Ben", **sessions}, "qa": []}


def read(folder: Path, *samples: Any, user: str | None = None) -> list[SourceRecord]:
    path = folder / "locomo.json"
    path.write_text(json.dumps(samples))
    return list(read_source(path, "locomo", user))


def sides(records: list[SourceRecord]) -> list[tuple[str, str]]:
    return [(record.user_input, record.agent_response) for record in records]


def test_a_page_is_a_turn_and_its_answer(tmp_path: Path) -> None:
    first, second = read(tmp_path, sample(session_1=turns("abab"), session_1_date_time=TIME))
    assert first[:7] == Draft(
        user_id="talk",
        assistant_id=None,
        user_input="a10",
        agent_response="b11",
        timestamp="2023-05-08 13:56:00",
        metadata={"dia_ids": ["D1:0", "D1:1"], "speakers": ["Ada", "Ben"], "session": 1},
        page_id=None,
    )
    assert (second.user_input, second.number) == ("a12", 1)


@pytest.mark.parametrize(
    ("speakers", "expected"),
    [
        ("aab", [("a10", ""), ("a11", "b12")]),
        ("abb", [("a10", "b11"), ("", "b12")]),
        ("ba", [("", "b10"), ("a11", "")]),
        ("bb", [("", "b10"), ("", "b11")]),
        ("aa", [("a10", ""), ("a11", "")]),
        ("", []),
    ],
)
def test_a_side_stays_empty_where_one_speaks_twice(
    tmp_path: Path, speakers: str, expected: list[tuple[str, str]]
) -> None:
    assert sides(read(tmp_path, sample(session_1=turns(speakers)))) == expected


def test_no_page_spans_sessions_and_sessions_come_by_number(tmp_path: Path) -> None:
    talk = sample(session_10=turns("b", 10), session_2=turns("a", 2), session_1=turns("a", 1), session_3_date_time=TIME)
    records = read(tmp_path, talk)
    assert sides(records) == [("a10", ""), ("a20", ""), ("", "b100")]
    assert [record.metadata and record.metadata["session"] for record in records] == [1, 2, 10]
    assert [record.timestamp for record in records] == [None] * 3


def test_a_picture_is_told_by_its_caption(tmp_path: Path) -> None:
    first, second = turns("ab")
    first |= {"blip_caption": "a photo of a red boat", "img_url": ["x"]}
    second |= {"text": "", "blip_caption": "a map"}
    assert sides(read(tmp_path, sample(session_1=[first, second]))) == [
        ("a10 (image: a photo of a red boat)", "(image: a map)")
    ]


def test_ordinals_count_through_the_file(tmp_path: Path) -> None:
    records = read(tmp_path, sample("x", session_1=turns("abab")), sample("y", session_1=turns("ab")))
    assert [(record.user_id, record.number) for record in records] == [("x", 0), ("x", 1), ("y", 2)]


def test_the_given_user_stands_in_for_a_missing_sample_id(tmp_path: Path) -> None:
    nameless = sample(session_1=turns("a"))
    del nameless["sample_id"]
    assert read(tmp_path, nameless, user="me")[0].user_id == "me"
    with pytest.raises(InputError, match="conversation 0: sample_id is missing"):
        read(tmp_path, nameless)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (7, "conversation 1: expected an object"),
        (sample(""), "conversation 1: sample_id is empty"),
        ({"sample_id": "s"}, r"conversation 1 \(s\): conversation is missing"),
        ({"sample_id": "s", "conversation": []}, "conversation must be an object, found a list"),
        ({"sample_id": "s", "conversation": {"speaker_a": "x"}}, "speaker_b is missing"),
        (sample(session_1={}), "session_1 must be a list, found an object"),
        (sample(session_1=[3]), "session_1, turn 0: expected an object"),
        (sample(session_1=[*turns("a"), {"speaker": "Cy", "dia_id": "D", "text": ""}]), "turn 1: speaker is 'Cy'"),
        (sample(session_1=[{"speaker": "Ada", "text": ""}]), "turn 0: dia_id is missing"),
        (sample(session_1=[{"speaker": "Ada", "dia_id": "D"}]), "turn 0: text is missing"),
        (sample(session_1=[], session_1_date_time=5), "session_1_date_time must be a string"),
    ],
)
def test_a_broken_conversation_is_named(tmp_path: Path, broken: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path, sample("fine"), broken)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a JSON array"),
        ('{"sample_id": "s"}', "expected a JSON array"),
        (json.dumps([sample(session_1=turns("ab"))])[:-1], "not valid JSON: parse error: premature EOF$"),
        (json.dumps([sample()]) + "x", "not valid JSON"),
        ('["\xff"]', "not UTF-8 at byte 2 of its text; convert the file"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=reason) as caught:
        list(read_source(path, "locomo"))
    assert str(path) in str(caught.value)


def test_conversations_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "locomo.json"
    first = json.dumps(sample(session_1=turns("ab" * 5000)))
    path.write_text(f"[{first}, broken")
    records = read_source(path, "locomo")
    assert next(records).number == 0
    with pytest.raises(InputError, match="not valid JSON"):
        list(records)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps([sample(session_1=turns("ab"))]), encoding="utf-8-sig")
    assert len(list(read_source(path))) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TIME, "2023-05-08 13:56:00"),
        ("12:05 am on 1 January, 2024", "2024-01-01 00:05:00"),
        ("12:05 PM on 29 February 2024", "2024-02-29 12:05:00"),
        ("11:59 pm on 31 December, 1999", "1999-12-31 23:59:00"),
        ("1:00 pm on 31 June, 2023", "1:00 pm on 31 June, 2023"),
        ("13:00 pm on 3 June, 2023", "13:00 pm on 3 June, 2023"),
        ("1:00 pm on 3 Juin, 2023", "1:00 pm on 3 Juin, 2023"),
        ("last summer", "last summer"),
        ("", ""),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert normalised_time(text) == expected


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talks=st.lists(st.lists(st.text("ab", max_size=8), max_size=12), max_size=3))
def test_every_turn_is_in_one_page_in_its_order(tmp_path: Path, talks: list[list[str]]) -> None:
    samples = [
        sample(f"talk {i}", **{f"session_{n}": turns(speakers, n) for n, speakers in enumerate(sessions, 1)})
        for i, sessions in enumerate(talks)
    ]
    records = read(tmp_path, *samples)
    assert [text for record in records for text in (record.user_input, record.agent_response) if text] == [
        turn["text"]
        for talk in samples
        for name, value in talk["conversation"].items()
        if name.startswith("session")
        for turn in value
    ]
    assert [record.number for record in records] == list(range(len(records)))
    assert all(record.user_input or record.agent_response for record in records)


@pytest.mark.skipif("MOS_LOCOMO" not in os.environ, reason="MOS_LOCOMO names no LoCoMo file")
def test_every_turn_of_the_real_file_is_in_one_page() -> None:
    path = Path(os.environ["MOS_LOCOMO"])
    turns_in = [
        (talk["sample_id"], turn["dia_id"])
        for talk in json.loads(path.read_text(encoding="utf-8"))
        for name, value in sorted(talk["conversation"].items(), key=lambda item: (len(item[0]), item[0]))
        if isinstance(value, list)
        for turn in value
    ]
    records = list(read_source(path))
    turns_out = [(record.user_id, dia_id) for record in records for dia_id in (record.metadata or {})["dia_ids"]]
    assert turns_out == turns_in
    assert all(record.timestamp and len(record.timestamp) == 19 for record in records)
