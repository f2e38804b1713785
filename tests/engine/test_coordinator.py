"""Between two looks at the accepted pages one may come: it is not forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.common import until
from tests.support import all_pages, open_fake


def test_a_page_that_comes_just_before_the_coordinator_rests_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ["late"]
    with open_fake(tmp_path, workers=False, store__flush_interval_s=0.05) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        engine = memory._engine
        last_look = engine.coordinator._serve_waiters

        def add_after(*, calm: bool) -> None:
            last_look(calm=calm)
            if calm and late and engine.state.pages and engine.coordinator._due() is None:  # nothing else wakes it
                memory.add("tom", late.pop(), "")

        monkeypatch.setattr(engine.coordinator, "_serve_waiters", add_after)
        memory.add("tom", "early", "")
        until(lambda: not late, "the coordinator is about to rest")
        until(lambda: len(engine.state.pages) == 2, "both pages are entered")
        assert [page.user_input for page in all_pages(memory)] == ["early", "late"]
