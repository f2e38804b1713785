from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.common import SETTINGS, Here, Record, records, result_of, write


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
