"""Closing while others add: what was accepted is kept, and from some moment on nothing is accepted."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from mos_pipeline.errors import ClosedError
from mos_pipeline.messages import PageRecord
from tests.faults.common import Load, check_reopened, fill, nothing_left
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", [True, False])
def test_whatever_is_accepted_while_the_store_is_closed_is_kept(tmp_path: Path, *, workers: bool) -> None:
    rng = random.Random("close")
    accepted: dict[str, list[str]] = {}
    for round_ in range(8):
        with nothing_left():
            memory = open_fake(tmp_path / "store", workers=workers, llm__processes=1, store__flush_interval_s=0.02)
            with Load(memory, seed=round_, pause_s=0.1, until_closed=True) as load:
                time.sleep(rng.random() * 0.5)
                memory.close()
        for user, page_ids in load.accepted.items():
            accepted.setdefault(user, []).extend(page_ids)
    check_reopened(tmp_path / "store", accepted)


@pytest.mark.parametrize("workers", [True, False])
def test_nothing_is_accepted_after_the_last_look_at_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, workers: bool
) -> None:
    """A caller may have passed every check before another one closes the pipeline, and go on only now."""
    record = PageRecord("ann", "helper", "too late", "no", "", None, None, None)
    with nothing_left(), open_fake(tmp_path / "store", workers=workers) as memory:
        fill(memory, 20)
        accepted = {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}
        engine, refused = memory._engine, list[str]()
        stop = engine.coordinator.stop

        def stop_and_add() -> None:
            stop()
            with pytest.raises(ClosedError, match="was not accepted") as error:
                engine.intake.add(record)
            refused.append(str(error.value))

        monkeypatch.setattr(engine.coordinator, "stop", stop_and_add)
        memory.close()
        assert refused
    check_reopened(tmp_path / "store", accepted)
