"""The benches about files: small runs of the whole, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf import backup, flood, jsonl
from perf.options import Options

SMALL = 400


@pytest.mark.slow
def test_a_small_file_is_accepted_and_worked_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BURST", SMALL // 4)
    result = jsonl.run(Options(quick=True, pages=SMALL, folder=tmp_path))
    bursts, accepted, worked_off, cost = result.figures
    assert bursts.samples == 1
    assert accepted.samples == worked_off.samples == cost.samples == SMALL - SMALL // 4
    assert accepted.median > worked_off.median > 0
    assert cost.median > 0
    assert {"main", "embedder", "llm", "writer"} <= {word.strip(":,") for word in worked_off.note.split()}
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_backups_beside_a_small_ingestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "ALONE_S", 0.2)
    result = backup.run(Options(pages=SMALL, folder=tmp_path))
    assert [figure.samples > 0 for figure in result.figures] == [True] * 3
    assert [[str(aim) for aim in figure.aims] for figure in result.figures] == [[], ["max ≤ 10"], ["max ≤ 10"]]
    assert all(f"{SMALL} pages" in figure.note for figure in result.figures[1:])
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_backup_that_was_not_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_made(_store: Path, _target: Path) -> None:
        """Do nothing."""

    monkeypatch.setattr(backup, "ALONE_S", 0.1)
    monkeypatch.setattr(backup, "_by_command", not_made)
    with pytest.raises(RuntimeError, match="no backup was made"):
        backup.run(Options(pages=40, folder=tmp_path))


@pytest.mark.slow
def test_memory_is_watched_while_a_file_is_ingested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "SAMPLE_S", 0.05)
    result = flood.run(Options(pages=30, folder=tmp_path))
    first, last, _, ratio = result.figures
    assert first.median > 0
    assert last.median > 0
    assert ratio.median >= 1.0
    assert "in 3" in first.note
    assert not any(tmp_path.iterdir())


def test_an_ingestion_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_text("no json\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="ingest ended with"):
        flood._watched(tmp_path / "pages.jsonl", tmp_path / "store", {"embedding__backend": "fake"})
