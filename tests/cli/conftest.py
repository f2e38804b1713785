from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.common import SETTINGS, Here, Record, records, result_of, telling_records, write


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return Here(capsys)


@pytest.fixture(scope="session")
def sample() -> list[Record]:
    return records(60)


@pytest.fixture(scope="session")
def sample_store(tmp_path_factory: pytest.TempPathFactory, sample: list[Record]) -> Path:
    """A store with the sample in it; tests only look at it."""
    folder = tmp_path_factory.mktemp("sample")
    result_of("ingest", write(folder / "pages.jsonl", sample), "--store", folder / "store")
    return folder / "store"


@pytest.fixture(scope="session")
def telling_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that knows something of a user and of the assistant; tests only look at it."""
    folder = tmp_path_factory.mktemp("telling")
    settings = [
        "short_term: {capacity: 3}",
        "mid_term: {heat_threshold: 2.0}",
        "long_term: {promotion_pages: 1, facts_per_promotion: 9}",
    ]
    (folder / "config.yaml").write_text("\n".join(settings))
    result_of(
        "ingest",
        write(folder / "pages.jsonl", telling_records()),
        "--store",
        folder / "store",
        "--config",
        folder / "config.yaml",
    )
    return folder / "store"
