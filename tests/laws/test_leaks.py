"""Ways on which a forgotten page's words could stay, one test each."""

from __future__ import annotations

from pathlib import Path

from tests.faults.common import PATIENCE_S
from tests.support import all_pages, open_fake
from tests.test_forget import SETTINGS, fill, on_disk, tell_secret


def test_compaction_takes_what_was_forgotten_before_the_store_was_opened(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 10)
        page_id = tell_secret(memory)
        memory.wait_idle(PATIENCE_S)
        memory.forget(page_id=page_id)
    with open_fake(tmp_path, **SETTINGS) as memory:
        memory.wait_idle(PATIENCE_S)
        pages = all_pages(memory)
        memory.compact(PATIENCE_S)
        assert all_pages(memory) == pages
    assert not on_disk(tmp_path)
