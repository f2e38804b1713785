"""``perf torture`` and ``perf soak``: what they count, and that they can fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perf import soak, torture
from perf.result import Figure
from perf.soak import Sample, compared
from perf.torture import Tally, compare


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["a", "b", "c"], (0, 0, 0, 0)),
        (["a", "b", "c", "d"], (0, 0, 0, 1)),
        (["a", "c"], (1, 0, 0, 0)),
        ([], (3, 0, 0, 0)),
        (["a", "b", "b", "c", "b"], (0, 2, 0, 0)),
        (["b", "a", "c"], (0, 0, 1, 0)),
        (["c", "x", "a"], (1, 0, 1, 1)),
    ],
)
def test_what_is_lost_twice_or_out_of_order_is_counted(found: list[str], expected: tuple[int, ...]) -> None:
    tally = Tally()
    compare({"ann": ["a", "b", "c"], "ben": ["z"]}, {"ann": found, "ben": ["z"]}, tally)
    assert (tally.lost, tally.twice, tally.out_of_order, tally.unnoted) == expected
    figures = {figure.name: figure.met for figure in tally.figures()}
    assert [figures[name] for name in ("lost", "there twice", "out of order")] == [not n for n in expected[:3]]


def test_a_user_who_is_gone_is_lost() -> None:
    tally = Tally()
    compare({"ann": ["a", "b"]}, {"ben": ["c"]}, tally)
    assert (tally.lost, tally.unnoted) == (2, 1)


@pytest.mark.parametrize("grows", [None, *Sample._fields])
def test_what_grows_misses_its_aim(grows: str | None) -> None:
    samples = [Sample(100, 100, 100, 100)._replace(**({grows: 100 + number} if grows else {})) for number in range(100)]
    missed = [figure.name for figure in compared(samples) if figure.met is False]
    assert len(missed) == (grows is not None)


@pytest.mark.slow
def test_a_short_torture_costs_nothing(tmp_path: Path) -> None:
    assert torture.main(["--runs", "2", "--dir", str(tmp_path), "--json", str(tmp_path / "report")]) == 0
    figures = json.loads((tmp_path / "report").read_text())["benches"]["torture"]["figures"]
    assert {figure["name"]: figure["median"] for figure in figures}["kills of the owner"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_torture_that_loses_pages_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def life(store: Path, rng: Any, tally: Tally, runs: int) -> None:
        tally.runs += runs
        tally.lost += 1

    monkeypatch.setattr(torture, "_life", life)
    assert torture.main(["--runs", "3", "--dir", str(tmp_path)]) == 1


@pytest.mark.slow
def test_a_short_soak_tells_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"USERS": 3, "PAGES": 12, "KILL_EACH_S": 0.2, "COMPACT_EACH": 4}.items():
        monkeypatch.setattr(soak, name, value)
    told: list[Sequence[Sample]] = []

    def compared_never(samples: Sequence[Sample]) -> list[Figure]:
        told.append(samples)
        return []

    monkeypatch.setattr(soak, "compared", compared_never)
    assert soak.main(["--seconds", "1", "--dir", str(tmp_path), "--json", str(tmp_path / "report")]) == 0
    (samples,) = told
    assert all(min(sample) > 0 for sample in samples)
    result = json.loads((tmp_path / "report").read_text())["benches"]["soak"]
    assert [len(series["points"]) for series in result["series"]] == [len(samples)] * len(Sample._fields)
    (figure,) = result["figures"]
    assert "all of it is whole" in figure["note"]
