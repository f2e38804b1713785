from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.cli import output
from mos_pipeline.cli.progress import Moment, Progress, Rate


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def moment(**changes: object) -> Moment:
    values = {
        "phase": "processing",
        "pages": 1200,
        "passed": 0,
        "rate": 85.2,
        "backlog": 600,
        "share": 0.5,
        "seconds_left": 7.1,
    }
    return Moment(**{**values, **changes})  # type: ignore[arg-type]


@given(st.text(), st.integers(1, 30))
def test_a_cut_text_is_one_line_that_fits(text: str, cells: int) -> None:
    shown = output.cut(text, cells)
    wide = sum(unicodedata.east_asian_width(char) in "WF" and not unicodedata.combining(char) for char in shown)
    spacing = sum(not unicodedata.combining(char) for char in shown)
    assert spacing + wide <= cells
    assert shown.isprintable()
    assert shown == output.clean(text) or shown.endswith("…")


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("hello world", 11, "hello world"),
        ("hello world", 10, "hello wor…"),
        ("漢漢漢", 5, "漢漢…"),
        (" a \n b ", 9, "a b"),
    ],
)
def test_cut(text: str, cells: int, shown: str) -> None:
    assert output.cut(text, cells) == shown


def test_amounts() -> None:
    assert [output.as_bytes(n) for n in (0, 1, 1023, 1536, 5 << 20, 3 << 30, 7 << 40)] == [
        "0 bytes",
        "1 byte",
        "1,023 bytes",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "7.0 TiB",
    ]
    assert [output.as_duration(s) for s in (0, 0.2, 59, 61, 3600)] == ["0:00", "0:01", "0:59", "1:01", "1:00:00"]


def test_json_takes_everything(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": b"x", "b": {1: [float("nan"), "é\ud800"]}, "c": (1, None, True)})
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert json.loads(shown) == {"a": "b'x'", "b": {"1": ["nan", "é\ud800"]}, "c": [1, None, True]}


def test_the_bar_is_redrawn_five_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream, clock = Terminal(), Clock()
    progress = Progress(stream, clock)
    for _ in range(100):
        progress.tick(moment)
        clock.now += 0.01
    progress.end()
    *frames, last = stream.getvalue().split("\r\x1b[K")[1:]
    assert 4 <= len(frames) <= 6
    assert frames[0] == "processing [############------------] 1,200 pages, 85 pages/s, backlog 600, 0:08 left"
    assert last == ""


def test_the_bar_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    Progress(stream, Clock()).tick(moment)
    assert len(stream.getvalue().removeprefix("\r\x1b[K")) == 29


@pytest.mark.parametrize("share", [-1.0, 0.0, 1.0, 2.0])
def test_the_bar_stays_a_bar(share: float) -> None:
    stream = Terminal()
    Progress(stream, Clock()).tick(lambda: moment(share=share))
    assert ("[" + "#" * 24 + "]" in stream.getvalue()) == (share >= 1)


def test_elsewhere_there_are_lines_from_the_fifth_second_on() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock)
    for _ in range(12):
        progress.tick(lambda: moment(passed=3, backlog=None, rate=None, seconds_left=None))
        clock.now += 1
    progress.end()
    assert stream.getvalue() == "processing: 1,200 pages, 3 already there, opening the store\n" * 2


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate(0) is None
    for second in range(1, 31):
        clock.now = 100.0 + second
        latest = rate(100 * second if second <= 15 else 1500)
        if second == 15:
            assert latest == 100.0
    assert latest == 0.0
