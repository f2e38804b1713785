"""Compaction by itself, and beside callers that go on adding."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.engine.compaction import Compaction
from tests.faults.common import PATIENCE_S, until
from tests.support import WORDS, all_pages, open_fake, page_text
from tests.test_forget import SECRET, SETTINGS, fill, on_disk


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


def compacted(memory: MemoryPipeline, path: Path) -> bool:
    """Wait until everything forgotten is gone from the segments; tell whether the secret is."""
    until(lambda: memory.stats().forgotten == 0 and memory._engine.compaction.idle, "it was compacted")
    return not on_disk(path)


@pytest.mark.parametrize("reopened", [False, True])
def test_it_begins_by_itself_once_too_many_pages_are_forgotten(tmp_path: Path, reopened: bool) -> None:
    with open_fake(tmp_path, **SETTINGS, store__max_dead_ratio=0.3) as memory:
        words = [SECRET] * 4 + ["beaglebeagle"] * 6  # of one length
        page_ids = [memory.add("tom", f"The {word} is number{at}.", "") for at, word in enumerate(words)]
        memory.wait_idle(PATIENCE_S)
        for page_id in page_ids[:3]:
            memory.forget(page_id=page_id)
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().forgotten == 3  # three of ten are not more than the bound
        assert memory._engine.compaction.idle
        if not reopened:
            memory.forget(page_id=page_ids[3])
            assert compacted(memory, tmp_path)
    with open_fake(tmp_path, workers=False, **SETTINGS) as memory:
        assert memory.forget(page_id=page_ids[3]) == reopened
        kept = all_pages(memory)
        assert [page.page_id for page in kept] == page_ids[4:]
    with open_fake(tmp_path, **SETTINGS, store__max_dead_ratio=0.3) as memory:
        assert compacted(memory, tmp_path)
        assert all_pages(memory) == kept
        memory.wait_idle(PATIENCE_S)


def test_one_long_page_is_most_of_the_bytes(tmp_path: Path) -> None:
    rng = random.Random(1)
    with open_fake(tmp_path, **SETTINGS) as memory:
        fill(memory, "tom", 40)
        long = memory.add("tom", f"{SECRET} " + " ".join(rng.choices(WORDS, k=5000)), "")
        memory.wait_idle(PATIENCE_S)
        assert on_disk(tmp_path)
        memory.forget(page_id=long)
        assert compacted(memory, tmp_path)
        assert len(all_pages(memory)) == 40
