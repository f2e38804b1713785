"""Words of a store that was opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mos_pipeline.engine import indexing
from mos_pipeline.memory.words import analyse_page
from mos_pipeline.messages import PageRecord
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
