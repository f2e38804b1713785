"""Compaction beside callers that go on adding."""

from __future__ import annotations

from pathlib import Path

import pytest

from mos_pipeline.engine.compaction import Compaction
from tests.faults.common import PATIENCE_S
from tests.support import all_pages, open_fake, page_text
from tests.test_forget import SETTINGS, fill


def test_a_page_accepted_while_the_journal_is_changed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last page of the old journal is entered only after the new one was begun."""
    change = Compaction._leave_journal

    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 10)
        memory.wait_idle(PATIENCE_S)

        def add_and_change(self: Compaction) -> None:
            memory.add("tom", *page_text(10))
            change(self)

        monkeypatch.setattr(Compaction, "_leave_journal", add_and_change)
        memory.compact(PATIENCE_S)
        assert all_pages(memory)[-1].user_input == page_text(10)[0]
        assert memory.verify().ok
        memory.wait_idle(PATIENCE_S)
    with open_fake(tmp_path, **SETTINGS) as memory:
        assert len(all_pages(memory)) == 11
