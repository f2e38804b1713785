"""An intake with a store under it, and what the next opening finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mos_pipeline.config import Backlog, Config, Store
from mos_pipeline.engine.intake import Intake
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.messages import PageRecord, decode_record
from mos_pipeline.store.journal import Journal
from mos_pipeline.store.recovery import OpenStore, open_store

__all__ = ["JOURNAL_BYTES", "PATIENCE_S", "Desk", "desk", "journaled", "record", "texts"]

JOURNAL_BYTES = 65536
PATIENCE_S = 60.0
CONFIG = Config()


class Desk:
    """An intake with a store under it."""

    def __init__(self, path: Path, *, power: bool = False, **backlog: Any) -> None:
        self.path = path
        self.store: OpenStore = open_store(path, Store(journal_bytes=JOURNAL_BYTES))
        self.state = MemoryState(self.store.manifest.store, CONFIG)
        self.made: list[Journal] = []
        self.wakes = 0
        self.intake = Intake(
            self.state, Backlog(**backlog), self.new_journal, self.store.retire, self.wake, power=power
        )

    def new_journal(self, min_bytes: int) -> Journal:
        self.made.append(self.store.new_journal(min_bytes))
        return self.made[-1]

    def wake(self) -> None:
        self.wakes += 1

    def add(self, text: str = "hello", **fields: Any) -> str:
        page_id, new = self.intake.add(record(text, **fields))
        assert new
        return page_id


@contextmanager
def desk(path: Path, **settings: Any) -> Iterator[Desk]:
    opened = Desk(path, **settings)
    try:
        yield opened
    finally:
        opened.intake.close()
        opened.store.close()


def record(text: str = "hello", user: str = "user", **fields: Any) -> PageRecord:
    blank = PageRecord(user, "assistant", text, "", "2024-01-01 00:00:00", None, None, None)
    return blank._replace(**fields)


def journaled(path: Path) -> list[tuple[int, PageRecord]]:
    """What the next opening finds, in its order."""
    with open_store(path, Store(journal_bytes=JOURNAL_BYTES)) as store:
        found = [(page.seq, decode_record(page.body)) for page in store.journaled_pages()]
        assert not store.damage and not store.torn
    return found


def texts(path: Path) -> list[str]:
    found = journaled(path)
    assert [seq for seq, _ in found] == list(range(len(found)))
    return [record.user_input for _, record in found]
