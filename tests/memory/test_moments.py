from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.memory.moments import epoch_moment, moment

NOON = datetime(2023, 5, 8, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2023-05-08 12:00:00",
        "2023-05-08T12:00:00Z",
        "2023-05-08T14:00:00+02:00",
        "2023-05-08T12:00:00.000000Z",
        "2023-05-08T12:00",
        "20230508T120000",
        "2023-05-08 12:00:00 UTC",
        "2023-05-08 12:00:00 GMT",
        " 2023-05-08 12:00:00 ",
        "2023/05/08 12:00:00",
        "Mon, 8 May 2023 12:00:00 +0000",
        "Mon, 08 May 2023 14:00:00 +0200",
        "8 May 2023 12:00 GMT",
        "1683547200",
        "1683547200.0",
        "1683547200000",
    ],
)
def test_every_common_form_is_read(text: str) -> None:
    assert moment(text) == NOON


def test_a_day_alone_is_its_beginning() -> None:
    for text in ("2023-05-08", "20230508", "2023/05/08"):
        assert moment(text) == datetime(2023, 5, 8, tzinfo=UTC)
    assert moment("2023-05-08T12:00:00.25-07:30") == datetime(
        2023, 5, 8, 12, 0, 0, 250_000, timezone(-timedelta(hours=7, minutes=30))
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1:56 pm on 8 May, 2023",
        "2023-13-01",
        "0000-00-00 00:00:00",
        "Mon, 32 May 2023 12:00:00 +0000",
        "8 Mai 2023 12:00:00 +0000",
        "9" * 400,
        "123456789012345",
        "١٦٨٣٥٤٧٢٠٠",
        "2023-05-08" + " " * 99,
        "\ud800",
        "2023/05/08/09",
        "inf",
    ],
)
def test_what_names_no_moment_is_none(text: str) -> None:
    assert moment(text) is None


@given(st.text(max_size=40) | st.from_regex(r"[0-9:/+ .TZa-zA-Z-]{0,40}"))
def test_nothing_is_an_error(text: str) -> None:
    found = moment(text)
    assert found is None or found.tzinfo is not None


@given(st.floats() | st.integers(-(10**30), 10**30))
def test_no_number_is_an_error(number: float) -> None:
    found = epoch_moment(number)
    assert found is None or found.tzinfo is UTC


@given(st.datetimes(datetime(1973, 3, 4), datetime(5138, 1, 1), timezones=st.just(UTC)))
def test_seconds_and_milliseconds_are_told_apart(when: datetime) -> None:
    assert abs((epoch_moment(when.timestamp()) or NOON) - when) < timedelta(milliseconds=1)
    assert abs((epoch_moment(int(when.timestamp() * 1000)) or NOON) - when) < timedelta(milliseconds=2)
