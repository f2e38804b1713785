"""Words of a store that was opened again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mos_pipeline.engine import indexing
from mos_pipeline.memory.words import analyse_page
from mos_pipeline.messages import PageRecord
from mos_pipeline.reading import DEFAULT_ASSISTANT
from tests.faults.common import PATIENCE_S, fill, until
from tests.support import open_fake, page_text


def test_words_that_are_stored_are_not_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_fake(tmp_path) as memory:
        fill(memory, 60)
        memory.wait_idle(PATIENCE_S)
        before = memory.retrieve("ann", "number3 violin garden", k=50).pages
    analysed = list[str]()

    def analyse(page: PageRecord):  # type: ignore[no-untyped-def]
        analysed.append(page.user_input)
        return analyse_page(page)

    monkeypatch.setattr(indexing, "analyse_page", analyse)
    with open_fake(tmp_path) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        assert memory.retrieve("ann", "number3 violin garden", k=50, timeout=PATIENCE_S).pages == before
        assert not analysed
        memory.add("ann", *page_text(60))
        assert memory.retrieve("ann", "number60", k=1).pages[0].page.user_input == page_text(60)[0]
        assert analysed == [page_text(60)[0]]


def test_a_step_ends_where_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        engine, now = memory._engine, [0.0]
        monkeypatch.setattr(indexing, "time", SimpleNamespace(perf_counter=lambda: now[0]))

        def analyse(page: PageRecord):  # type: ignore[no-untyped-def]
            now[0] += 1.0
            return analyse_page(page)

        monkeypatch.setattr(indexing, "analyse_page", analyse)
        with engine.coordinator.lock:
            fill(memory, 30, users=("ann",))
            engine.coordinator.absorb()
            scope = engine.state.find("ann", DEFAULT_ASSISTANT)
            assert scope is not None
            indexed = list[int]()
            for stop in (-1.0, 3.0, 8.0, 100.0, 100.0):
                assert engine.indexing.step(16, stop) == (scope.indexed < 30)
                indexed.append(scope.indexed)
        # One in any case; then until 3 and 8 have passed; then sixteen; then what is left.
        assert indexed == [1, 3, 8, 24, 30]
