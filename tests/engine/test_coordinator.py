"""The coordinator's edges: a page between two looks, a call that raises, waiters when it ends."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mos_pipeline import ClosedError, MosError
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


def fail() -> None:
    raise RuntimeError("an answer that can't be taken")


def test_pages_are_taken_after_a_call_has_raised(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        memory.wait_idle(60)
        memory._engine.inbox.put(fail)
        until(lambda: memory._engine.coordinator.error, "it has raised")
        for number in range(40):
            memory.add("tom", f"page {number}", "")
        until(lambda: memory.stats().vectors >= 36, "full batches are worked off")
        with pytest.raises(MosError, match="can't be taken"):
            memory.wait_idle(60)


def test_nothing_is_lost_where_the_last_call_before_closing_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_fake(tmp_path) as memory:
        coordinator, inbox = memory._engine.coordinator, memory._engine.inbox
        stop = coordinator._stop

        def stop_and_fail() -> None:
            stop()
            inbox.put(fail)

        monkeypatch.setattr(coordinator, "_stop", stop_and_fail)
        for number in range(3000):
            memory.add("tom", f"page {number}", "")
    with open_fake(tmp_path, workers=False) as memory:
        assert [page.user_input for page in all_pages(memory)] == [f"page {number}" for number in range(3000)]


@pytest.mark.parametrize("what", ["wait_idle", "flush"])
def test_who_waits_while_another_closes_is_told(tmp_path: Path, what: str) -> None:
    told: list[BaseException] = []
    with open_fake(tmp_path, embedding__fake_ms_per_text=200.0) as memory:
        if what == "flush":  # nothing is written any more
            memory._engine.persistence.hand_over = lambda *, everything=False: None  # type: ignore[method-assign]

        def wait() -> None:
            try:
                getattr(memory, what)()
            except ClosedError as error:
                told.append(error)

        for number in range(50):
            memory.add("tom", f"page {number}", "")
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        until(lambda: memory._engine.coordinator._waiters, "somebody waits")
    thread.join(60)
    assert len(told) == 1


def test_who_asks_does_not_wait_for_what_was_accepted_for_others_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_fake(tmp_path, workers=False) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        engine = memory._engine
        monkeypatch.setattr(engine.coordinator, "_slice", lambda _: False)  # it enters nothing by itself
        memory.add("tom", "I have a beagle", "")
        for number in range(20):
            memory.add("ann", f"page {number}", "")
        assert [hit.page.user_input for hit in memory.retrieve("tom", "beagle").pages] == ["I have a beagle"]
        assert len(engine.intake.accepted) == 20
        memory.add("tom", "the beagle is called Rex", "")
        assert len(memory.retrieve("tom", "beagle").pages) == 2
        assert not engine.intake.accepted
        page_id = memory.add("ann", "about a beagle", "")
        memory.forget(page_id=page_id)
        memory.add("ann", "the last page", "")
        assert len(memory.retrieve("tom", "beagle").pages) == 2
        assert len(engine.intake.accepted) == 1, "what was forgotten is forgotten for all who ask"
        monkeypatch.undo()
