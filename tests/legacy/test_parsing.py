"""Files of a data folder: what is wrong with them is named by file and field, and costs only itself."""

from __future__ import annotations

import gzip
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.legacy.folder import LegacyFolder
from mos_pipeline.legacy.history import history_of
from mos_pipeline.legacy.model import LegacyUser, Problem
from mos_pipeline.legacy.parsing import parse_assistant, parse_user
from mos_pipeline.legacy.taking import takeover_of
from tests.legacy.common import fact, long_term, mid_page, mid_term, put, session, short_page, tom, vector

MID, LONG, SHORT = (f"users/tom/{name}" for name in ("mid_term.json", "long_term_user.json", "short_term.json"))


def parsed(root: Path, user_id: str = "tom") -> tuple[LegacyUser, list[Problem]]:
    """Return what a folder says of a user, and what is wrong."""
    problems: list[Problem] = []
    return parse_user(LegacyFolder(root), user_id, problems), problems


def test_all_fields_of_a_sound_folder(tmp_path: Path) -> None:
    user, problems = parsed(tom(tmp_path))
    assert problems == []
    a, b = user.sessions
    assert (a.session_id, a.summary, a.visits, a.interactions, a.accesses) == (
        "session_a",
        "summary of session_a",
        2,
        1,
        5,
    )
    assert [page.page_id for page in a.pages] == ["page_00000000", "page_00000001", "page_00000004"]
    assert (a.pages[1].before, a.pages[1].after, a.pages[1].overview) == ("page_00000000", "page_00000004", "of things")
    assert [page.analyzed for page in a.pages] == [True, True, False]
    assert b.pages[1].extra == {"page_keywords": ["kept"]}
    assert a.vector is not None and np.array_equal(a.vector, np.array(vector(a.summary)).astype(np.float16))
    assert [page.content for page in user.short] == [tuple(short_page(number).values()) for number in (20, 21)]
    assert [one.text for one in user.knowledge] == ["tom likes tea", "tom has a dog named Rex"]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b'{"sessions": {', "is no JSON"),
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "must hold an object"),
        (b"7", "must hold an object"),
        (gzip.compress(b'{"sessions": {}}', mtime=0)[:-9], "is cut off"),
        (gzip.compress(b'{"sessions": {}}', mtime=0)[:-4] + b"\0\0\0\0", "is damaged"),
        (b"\x1f\x8bnothing of the kind", "is damaged"),
    ],
    ids=["half", "empty", "no text", "deep", "list", "number", "short gzip", "wrong checksum", "no gzip"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_named_and_the_others_are_read(
    tmp_path: Path, damaged: bytes, reason: str, suffix: str
) -> None:
    tom(tmp_path)
    (tmp_path / MID).unlink()
    put(tmp_path, MID + suffix, damaged)
    user, problems = parsed(tmp_path)
    assert [(one.file, one.field) for one in problems] == [(MID + suffix, "")]
    assert reason in problems[0].reason
    assert (len(user.short), len(user.knowledge), len(user.sessions)) == (2, 2, 0)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    tom(tmp_path)
    (tmp_path / MID).unlink()
    (tmp_path / MID).mkdir()  # permissions say nothing to root
    _, problems = parsed(tmp_path)
    assert [(one.file, one.reason.split(" (")[0]) for one in problems] == [(MID, "can't be read")]


def test_of_two_forms_of_a_file_the_later_counts(tmp_path: Path) -> None:
    old = put(tmp_path, SHORT, [short_page(1)])
    put(tmp_path, SHORT, [short_page(2)], zipped=True)
    os.utime(old, (1, 1))
    assert [page.user_input.split()[1] for page in parsed(tmp_path)[0].short] == ["2"]
    os.utime(old)
    os.utime(f"{old}.gz", (1, 1))
    assert [page.user_input.split()[1] for page in parsed(tmp_path)[0].short] == ["1"]


def test_wrong_types_are_named_by_their_fields(tmp_path: Path) -> None:
    pages = [mid_page(0), mid_page(1, user_input=7), "page", mid_page(2, pre_page=3, analyzed="yes", meta_info=[])]
    broken = session("s", [], details=pages, N_visit="two", L_interaction=-1, access_count_lfu=True)
    broken |= {"summary_keywords": ["fine", 1], "last_visit_time": "yesterday"}
    put(tmp_path, MID, mid_term(broken, session("whole", [mid_page(9)])) | {"access_frequency": []})
    put(tmp_path, LONG, {"user_profiles": {"tom": 1, "ann": {"data": "x"}}, "knowledge_base": {"a": 1}})
    put(tmp_path, SHORT, [short_page(1), None, {"user_input": None}])
    user, problems = parsed(tmp_path)
    named = [(one.file, one.field) for one in problems]
    assert sorted(named) == sorted(
        [
            (SHORT, "[1]"),
            (MID, "sessions.s.access_count_lfu"),
            (MID, "sessions.s.summary_keywords"),
            (MID, "sessions.s.details[1].user_input"),
            (MID, "sessions.s.details[2]"),
            (MID, "sessions.s.details[3].pre_page"),
            (MID, "sessions.s.details[3].analyzed"),
            (MID, "sessions.s.details[3].meta_info"),
            (MID, "sessions.s.N_visit"),
            (MID, "sessions.s.L_interaction"),
            (MID, "sessions.s.last_visit_time"),
            (LONG, "user_profiles.tom"),
            (LONG, "user_profiles.ann"),
            (LONG, "knowledge_base"),
        ]
    )
    assert [len(one.pages) for one in user.sessions] == [2, 1]
    assert (user.sessions[0].keywords, user.sessions[0].visits) == (("fine",), 0)
    assert user.sessions[0].last_visit == datetime(2026, 2, 1, 10).timestamp()
    assert [page.content for page in user.short] == [tuple(short_page(1).values()), ("", "", "")]


@pytest.mark.parametrize(
    "value",
    [
        [],
        "none",
        {},
        [0.0] * 4,
        [2.0, 0.0],
        [float("nan")] * 4,
        [float("inf")] * 4,
        [[1.0]],
        [1.0, "x"],
        [None, 1.0],
        [10**400, 1.0],
        None,
    ],
)
def test_what_is_no_vector_of_length_one_is_none(tmp_path: Path, value: Any) -> None:
    put(tmp_path, MID, mid_term(session("s", [mid_page(0, page_embedding=value)], summary_embedding=value)))
    put(tmp_path, LONG, long_term(facts=[{**fact("tea"), "knowledge_embedding": value}]))
    user, problems = parsed(tmp_path)
    assert problems == []
    assert [user.sessions[0].vector, user.sessions[0].pages[0].vector, user.knowledge[0].vector] == [None] * 3


def test_what_says_nothing_is_no_profile_and_no_fact(tmp_path: Path) -> None:
    put(tmp_path, LONG, long_term("tom", " None ", [fact("none"), fact(""), fact("tea")]))
    put(tmp_path, SHORT, [])
    user, problems = parsed(tmp_path)
    assert (user.profile, [one.text for one in user.knowledge], problems) == ("", ["tea"], [])


def test_an_assistants_file_tells_of_no_users(tmp_path: Path) -> None:
    told = long_term("tom", "a profile that is long enough to count", [fact("of tom")], [fact("I am mia")])
    put(tmp_path, "assistants/mia/long_term_assistant.json", told)
    problems: list[Problem] = []
    found = parse_assistant(LegacyFolder(tmp_path), "mia", problems)
    assert [one.text for one in found.knowledge] == ["I am mia"]
    assert [one.field for one in problems] == ["user_profiles", "knowledge_base"]


def test_what_is_no_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(InputError, match="data_storage_path"):
            LegacyFolder(path)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def mangled(whole: Any, at: list[int], value: Any) -> Any:
    """Return a file's JSON with ``value`` in the place of some part of it; ``at`` leads there."""
    if not at or not whole or not isinstance(whole, dict | list):
        return value
    keys = list(whole) if isinstance(whole, dict) else range(len(whole))
    key = keys[at[0] % len(keys)]
    changed = whole.copy()
    changed[key] = mangled(whole[key], at[1:], value)
    return changed


SOUND = {
    MID: mid_term(session("s", [mid_page(0, next_page="page_00000001"), mid_page(1)]), session("t", [mid_page(1)])),
    LONG: long_term("tom", "a profile that is long enough to count", [fact("tea")]),
    SHORT: [short_page(1), short_page(2)],
}


@given(st.sampled_from(sorted(SOUND)), st.lists(st.integers(0, 20), max_size=7), ANY_JSON)
def test_whatever_stands_somewhere_in_a_file_costs_only_that_or_is_taken(name: str, at: list[int], value: Any) -> None:
    with tempfile.TemporaryDirectory() as root:
        for path, whole in SOUND.items():
            put(Path(root), path, mangled(whole, at, value) if path == name else whole)
        user, problems = parsed(Path(root))
        history = history_of(user, problems)
        taken = takeover_of(history, (), {one.key: one.key for one in history.pages}, b"name")
        assert {problem.file for problem in problems} <= {name}
        if name != MID:
            assert len(taken.pages) == 2
        if name != LONG:
            assert [one.text for one in taken.facts] == ["tea"]
