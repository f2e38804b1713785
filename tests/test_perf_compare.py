"""Results compared: what is worse, by how much, and when that fails the process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from perf.compare import main, pairs
from perf.result import Aim, BenchResult, Figure, at_least, at_most


def report(*figures: Figure, revision: str = "a", **more: Any) -> dict[str, Any]:
    benches = {"append": BenchResult("append", {"store": 1}, list(figures), **more).as_dict()}
    return {"benches": benches, "machine": {"cpu": "one", "load": 1.0}, "commit": {"revision": revision}}


def written(folder: Path, name: str, *figures: Figure, **more: Any) -> str:
    path = folder / name
    path.write_text(json.dumps(report(*figures, **more)), "utf-8")
    return str(path)


def figure(value: float, unit: str = "", *aims: Aim, name: str = "add") -> Figure:
    return Figure(name, unit, 3, value, 2 * value, None, aims)


@pytest.mark.parametrize(
    ("unit", "aims", "worse"),
    [
        ("µs", (), 2.0),
        ("bytes", (), 2.0),
        ("pages/s", (), 0.5),
        ("", (at_most(1),), 2.0),
        ("", (at_least(1),), 0.5),
        ("", (), None),
        ("", (at_most(3), at_least(1)), None),
    ],
)
def test_what_is_worse_follows_from_the_unit_or_the_aim(unit: str, aims: tuple[Aim, ...], worse: float | None) -> None:
    ((pair,), missing) = pairs(report(figure(1.0, unit, *aims)), report(figure(2.0, unit, *aims)))
    assert pair.worse == worse
    assert pair.ratios == [2.0, 2.0, None]
    assert missing == []


@pytest.mark.parametrize(
    ("unit", "aims", "before", "after", "worse"),
    [
        ("pages/s", (), 5.0, 0.0, math.inf),
        ("", (at_least(1),), 0.9, 0.0, math.inf),
        ("", (at_most(0),), 0.0, 3.0, math.inf),
        ("ms", (), 2.0, 0.0, 0.0),
        ("ms", (), 0.0, 0.0, 1.0),
        ("MB", (), -1.0, 16.0, None),
    ],
)
def test_what_falls_to_nothing_is_worse_beyond_any_factor(
    tmp_path: Path, unit: str, aims: tuple[Aim, ...], before: float, after: float, worse: float | None
) -> None:
    figures = figure(before, unit, *aims), figure(after, unit, *aims)
    ((pair,), _) = pairs(*map(report, figures))
    assert pair.worse == worse
    files = [written(tmp_path, name, each) for name, each in zip("ab", figures, strict=True)]
    assert main([*files, "--bound", "1000"]) == (worse == math.inf)


@pytest.mark.parametrize(("after", "bound", "code"), [(1.15, "1.2", 0), (1.25, "1.2", 1), (0.5, "1.2", 0)])
def test_a_bound_is_kept_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], after: float, bound: str, code: int
) -> None:
    files = written(tmp_path, "a", figure(1.0, "µs")), written(tmp_path, "b", figure(after, "µs"))
    assert main([*files, "--bound", bound]) == code
    assert main(files) == 0
    assert ("worse by more than 1.2: append: add: 1.25" in capsys.readouterr().out) == bool(code)


def test_a_figure_that_is_gone_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = written(tmp_path, "a", figure(1.0, "µs"), figure(1.0, "µs", name="other"))
    second = written(tmp_path, "b", figure(1.0, "µs"))
    assert main([first, second, "--bound", "2"]) == 1
    assert "only in" in capsys.readouterr().out
    assert main([second, first, "--bound", "2"]) == 0


def test_what_else_differs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = written(tmp_path, "a", figure(1.0)), written(tmp_path, "b", figure(1.0), revision="b", others=1.0)
    assert main(files) == 0
    out = capsys.readouterr().out
    assert "commit, revision: a | b" in out
    assert "append: ROUGH, other processes used 0.00 | 1.00 cores" in out
    assert "load" not in out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"benches": 3}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(SystemExit, match=r"a\.json: no result of python -m perf --json"):
        main([str(path), str(path)])


@pytest.mark.parametrize("bound", ["0.5", "inf", "nan", "x"])
def test_a_bound_is_a_factor_from_one_on(bound: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["a", "b", "--bound", bound])
    assert "--bound" in capsys.readouterr().err
