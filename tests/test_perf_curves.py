"""The benches that draw curves: small runs of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf import growth, readers
from perf.options import Options
from perf.result import BenchResult, Series


@pytest.mark.slow
def test_what_a_store_costs_is_measured_at_each_size(tmp_path: Path) -> None:
    result = growth.run(Options(quick=True, pages=400, folder=tmp_path))
    figures = {figure.name: figure for figure in result.figures}
    assert figures["add, 40 pages"].samples == 20
    assert figures["add, 400 pages"].samples == 160
    assert all(figure.median >= 0 for figure in result.figures)
    assert {series.name for series in result.series} == {name for name, *_ in growth._CURVES}
    assert all([x for x, _ in series.points] == [40, 400] for series in result.series)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_every_number_of_readers_is_measured_idle_and_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "READERS", (1, 3))
    monkeypatch.setattr(readers, "PAUSE_S", 0.05)
    monkeypatch.setattr(readers, "QUICK_SPAN_S", 0.5)
    result = readers.run(Options(quick=True, pages=12, backend="fake", folder=tmp_path))
    figures = {figure.name: figure for figure in result.figures}
    for count in (1, 3):
        assert figures[f"retrieve, {count} readers, idle"].samples >= count
        assert figures[f"retrieve, {count} readers, under ingestion"].samples >= 1
    assert len(result.series) == 6
    assert not any(tmp_path.iterdir())


def test_a_reader_that_fails_fails_the_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "READERS", (1,))
    monkeypatch.setattr(readers, "question", lambda *_: 3)
    with pytest.raises(Exception, match="query"):
        readers.run(Options(quick=True, pages=12, backend="fake", folder=tmp_path))


def test_series_are_written_as_json() -> None:
    series = Series("growth", "add", "pages", "µs", [(1.0, 2.0)])
    told = BenchResult("growth", {}, series=[series]).as_dict()["series"]
    assert told == [{"plot": "growth", "name": "add", "x": "pages", "y": "µs", "points": [(1.0, 2.0)]}]
