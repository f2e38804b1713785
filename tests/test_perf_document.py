"""The four scenarios, small and without the model; what they measure is nobody's business here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perf import __main__ as harness
from perf import adds, document
from perf.options import Options
from perf.result import BenchResult, Figure, at_least, at_most
from perf.texts import Page, synthetic_pages


def result(*met: bool) -> BenchResult:
    figures = [Figure(f"scenario {number // 2}, figure", "", 1, 1.0) for number in range(2)]
    figures += [
        Figure(f"scenario {number}, ratio", "", 1, 1.0, aims=(at_most(2) if well else at_least(2),))
        for number, well in enumerate(met)
    ]
    return BenchResult("document", {}, figures)


def test_a_scenario_passes_where_all_its_aims_are_met() -> None:
    assert document.verdicts(result(True, False)) == {"scenario 0": True, "scenario 1": False}


@pytest.mark.parametrize(("met", "code"), [((True, True), 0), ((True, False), 1)])
def test_a_scenario_that_fails_fails_the_process(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    met: tuple[bool, ...],
    code: int,
) -> None:
    asked: list[float] = []

    def run(options: Options) -> BenchResult:
        asked.append(options.latency_s)
        return result(*met)

    monkeypatch.setattr(document, "run", run)
    file = tmp_path / "found.json"
    assert harness.main(["document", "--latency-ms", "100", "--json", str(file)]) == code
    assert asked == [0.1]
    assert ("FAILED: scenario 1" in capsys.readouterr().out) == bool(code)
    assert len(json.loads(file.read_text())["benches"]["document"]["figures"]) == 4


@pytest.mark.parametrize("latency", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("command", ["document", "cliff"])
def test_an_answer_takes_some_time(command: str, latency: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        harness.main([command, f"--latency-ms={latency}"])
    assert "argument --latency-ms: invalid milliseconds value" in capsys.readouterr().err


@pytest.mark.slow
def test_all_four_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = adds.openai_settings

    def fake(base_url: str, **more: Any) -> dict[str, Any]:
        return settings(base_url, **more, embedding__backend="fake")

    seeds = dict[str, int]()

    def pages(user: str, seed: int) -> Iterator[Page]:
        seeds[user] = seed
        return synthetic_pages(user, seed)

    monkeypatch.setattr(document, "synthetic_pages", pages)
    monkeypatch.setattr(document, "openai_settings", fake)
    monkeypatch.setattr(adds, "PAUSE_S", 0.0)
    found = document.run(Options(quick=True, pages=12, folder=tmp_path, latency_ms=50.0))
    assert set(document.verdicts(found)) == {"cliff", "retrieval", "background", "compression"}
    one_store = [seed for user, seed in seeds.items() if not user.startswith("stored")]
    assert len(set(one_store)) == len(one_store) == 4 + 4 + 1, "equal texts would not be embedded again"
    figures = {figure.name: figure for figure in found.figures}
    assert figures["retrieval, the question's own page is found"].median == 1.0
    assert figures["background, add while calls are in flight"].samples >= 4
    assert (
        0 < figures["compression, our bytes a page"].median < figures["compression, the original's bytes a page"].median
    )
    assert not any(tmp_path.iterdir())
