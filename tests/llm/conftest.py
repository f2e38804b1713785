from __future__ import annotations

from collections.abc import Iterator

import pytest

from mos_pipeline.stages import caller
from mos_pipeline.testing import FakeOpenAI
from tests.leftovers import nothing_left

__all__ = ["nothing_left"]


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause but briefly before a call is made again."""
    monkeypatch.setattr(caller, "FIRST_PAUSE_S", 0.01)
