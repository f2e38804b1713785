from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.moments import moment
from mos_pipeline.memory.sittings import Sitting, next_sitting
from tests.memory import law

times = st.sampled_from(["2024-05-01 10:00:00", "2024-05-01 10:40:00", "2024-05-02 09:00:00", "", "yesterday"])
metadata = st.sampled_from([None, {}, {"session": 1}, {"session": "b"}, {"session": [2, 3]}])


def follow(*pages: tuple[str, dict[str, Any] | None]) -> list[int]:
    """Return the numbers of the pages' sittings."""
    before, numbers = None, []
    for timestamp, data in pages:
        before = next_sitting(before, timestamp, data, key="session", gap_hours=1.0)
        numbers.append(before.number)
    return numbers


def at(*clock: str) -> list[tuple[str, None]]:
    return [(f"2024-05-01 {time}" if time else "no time", None) for time in clock]


@law
@given(st.lists(st.tuples(times, metadata)))
def test_numbers_begin_at_zero_and_rise_by_one(pages: list[tuple[str, dict[str, Any] | None]]) -> None:
    numbers = follow(*pages)
    assert all(after - before in (0, 1) for before, after in zip([0, *numbers], numbers, strict=False))


def test_the_sources_names_decide_whatever_the_time() -> None:
    assert follow(
        ("2024-05-01 10:00:00", {"session": 1}),
        ("2024-05-09 10:00:00", {"session": 1}),
        ("2024-05-09 10:00:00", {"session": 2}),
        ("2024-05-09 10:00:00", None),
        ("2024-05-09 10:00:00", {"session": 2}),
    ) == [0, 0, 1, 2, 3]


def test_a_gap_in_time_begins_a_sitting_and_steps_do_not_add_up() -> None:
    assert follow(*at("10:00:00", "10:59:59", "11:59:58", "12:59:58")) == [0, 0, 0, 1]


def test_a_page_from_earlier_begins_one_too() -> None:
    assert follow(*at("10:00:00", "08:00:00", "08:10:00")) == [0, 1, 1]


def test_times_that_cannot_be_read_begin_none_and_are_looked_past() -> None:
    assert follow(*at("", "10:00:00", "", "10:30:00", "", "12:00:00")) == [0, 0, 0, 0, 0, 1]


def test_zones_are_minded() -> None:
    assert follow(("2024-05-01T10:00:00+02:00", None), ("2024-05-01 08:10:00", None)) == [0, 0]


def test_another_key_may_hold_the_name() -> None:
    before = Sitting(4, "a", None)
    assert next_sitting(before, "", {"thread": "b"}, key="thread", gap_hours=1.0) == Sitting(5, "b", None)
    assert next_sitting(before, "", {"thread": "a"}, key="thread", gap_hours=1.0).number == 4


@pytest.mark.parametrize("text", ["", "yesterday", "1:56 pm on 8 May, 2023", "2024-13-01", "2024-05-01 25:00:00"])
def test_what_is_no_date_is_no_moment(text: str) -> None:
    assert moment(text) is None


def test_a_moment_without_a_zone_is_in_utc() -> None:
    assert moment("2024-05-01") == moment("2024-05-01T02:00:00+02:00")
