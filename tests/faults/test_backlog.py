"""Pages come faster than the models work, or the models are gone: the backlog is bounded, and nobody starves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.engine.events import BatchDone, decode_events
from mos_pipeline.errors import BackpressureError
from mos_pipeline.store.codec import FrameKind
from tests.faults.common import (
    PATIENCE_S,
    check_consistent,
    check_found,
    check_order,
    check_reopened,
    fill,
    frames_of,
    nothing_left,
    until,
)
from tests.support import all_pages, open_fake, page_text

pytestmark = pytest.mark.slow

MARK = 30_000  # bytes, some 150 pages


@contextmanager
def stopped_embedder(memory: MemoryPipeline) -> Iterator[None]:
    """Hold the embedder still, as a model that does not answer would be."""
    until(lambda: memory.stats().workers["embedder"].state == "ready", "the embedder is ready")
    (pid,) = memory.stats().workers["embedder"].pids
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def add_until_refused(memory: MemoryPipeline) -> dict[str, list[str]]:
    accepted: dict[str, list[str]] = {}
    for number in range(10_000):
        user = f"user{number % 7}"
        try:
            accepted.setdefault(user, []).append(memory.add(user, *page_text(number)))
        except BackpressureError as error:
            assert f"high-water mark of {MARK} bytes" in str(error)
            return accepted
    raise AssertionError("the backlog has no end")


@pytest.mark.parametrize("policy", ["raise", "block"])
def test_above_the_mark_nothing_is_accepted_and_nothing_lost(tmp_path: Path, policy: str) -> None:
    settings = {"backlog__policy": policy, "backlog__max_bytes": MARK, "backlog__timeout_s": 0.2}
    with nothing_left(), open_fake(tmp_path / "store", **settings) as memory:
        with stopped_embedder(memory):
            accepted = add_until_refused(memory)
            stats = memory.stats()
            assert MARK <= stats.backlog_bytes < MARK + 1000
            assert stats.backlog_pages == sum(map(len, accepted.values()))
            turn = max(9, memory._engine.embedding.turn)
            assert stats.in_flight_texts < memory._engine.config.embedding.in_flight_texts + turn
            check_order(memory, accepted)
            check_found(memory, all_pages(memory)[:5], dense=False)
        until(lambda: memory.stats().backlog_bytes < MARK, "there is room again")
        accepted["user0"].append(memory.add("user0", *page_text(10_000)))
        memory.wait_idle(PATIENCE_S)
        check_order(memory, accepted)
        check_consistent(memory)
    check_reopened(tmp_path / "store", accepted)


def test_whoever_waits_for_room_gets_in_when_the_model_is_back(tmp_path: Path) -> None:
    settings = {"backlog__max_bytes": MARK, "backlog__timeout_s": PATIENCE_S}
    with nothing_left(), open_fake(tmp_path / "store", **settings) as memory:
        with stopped_embedder(memory):
            adding = threading.Thread(target=fill, args=(memory, 400))
            adding.start()
            until(lambda: memory.stats().backlog_bytes >= MARK, "the mark is reached")
            adding.join(0.3)
            assert adding.is_alive()
            assert memory.stats().backlog_bytes < MARK + 1000
        adding.join()
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().pages == 400
        assert memory.stats().backlog_pages == 0


def test_the_mark_counts_what_an_earlier_owner_left(tmp_path: Path) -> None:
    with open_fake(tmp_path / "store", workers=False) as memory:
        fill(memory, 200)
    settings = {"backlog__policy": "raise", "backlog__max_bytes": MARK}
    with nothing_left(), open_fake(tmp_path / "store", workers=False, **settings) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        with pytest.raises(BackpressureError):
            memory.add("ann", "one more", "no")
    with nothing_left(), open_fake(tmp_path / "store", **settings) as memory:
        memory.wait_idle(PATIENCE_S)
        memory.add("ann", "one more", "yes")


def test_nobody_waits_behind_another_ones_bulk_load(tmp_path: Path) -> None:
    """Told by what stands in the store: how many of the bulk's batches were applied before the newcomer's one."""
    bulk, store = 2000, tmp_path / "store"
    with nothing_left(), open_fake(store, embedding__fake_ms_per_text=1.0, store__flush_interval_s=0.05) as memory:
        fill(memory, bulk, ["bulk"])
        until(lambda: memory.stats().vectors, "the bulk is being worked on")
        fill(memory, 9, ["newcomer"])
        under_way = memory._engine.state.pages.embedded + memory.stats().in_flight_texts
        memory.wait_idle(PATIENCE_S)
    frames = [frame for _, frame in frames_of(store, FrameKind.EVENTS)]
    events = [event for frame in frames for event in decode_events(frame.body)]
    users = [event.user_id for event in events if isinstance(event.what, BatchDone)]
    assert users.count("bulk") == bulk // 9
    assert users.count("newcomer") == 1
    assert under_way < bulk // 2
    assert users.index("newcomer") <= under_way // 9 + 30
