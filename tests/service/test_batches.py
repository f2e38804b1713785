"""Batches: every page is answered for, by the pipeline and over the owner's socket alike, and none is there twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline import (
    Added,
    BackpressureError,
    ClosedError,
    InputError,
    MemoryPipeline,
    Page,
    StoreError,
    StoreFullError,
)
from mos_pipeline.engine.intake import Intake
from mos_pipeline.messages import SourceMark
from mos_pipeline.service import client, server
from mos_pipeline.service.address import connected
from mos_pipeline.service.client import RemoteMemory
from mos_pipeline.service.protocol import comes
from tests.support import all_pages, open_fake

PATIENCE_S = 60.0

Either = MemoryPipeline | RemoteMemory


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryPipeline]:
    with open_fake(tmp_path / "store", workers=False) as memory:
        yield memory


@pytest.fixture(params=["pipeline", "socket"])
def either(memory: MemoryPipeline, request: pytest.FixtureRequest) -> Iterator[Either]:
    if request.param == "pipeline":
        yield memory
    else:
        with RemoteMemory(memory._engine.store.folder.root) as remote:
            yield remote


def page(number: int, **fields: Any) -> dict[str, Any]:
    return {"user_id": "tom", "user_input": f"said {number}", "agent_response": "", **fields}


def marked(number: int, source: bytes = b"file") -> dict[str, Any]:
    return page(number, source=SourceMark(source, 3 * number))


def said(memory: MemoryPipeline) -> list[str]:
    return [found.user_input for found in all_pages(memory)]


def test_each_page_is_answered_for(memory: MemoryPipeline, either: Either) -> None:
    moment = datetime(2026, 3, 1, 10)
    found = either.add_batch(
        [
            page(0, page_id="mine", timestamp=moment, metadata={"deep": [{"a": 1}]}, assistant_id="rex"),
            page(1, page_id="mine", assistant_id="rex"),
            marked(2),
            Page("of a Page", "tom", "x", "said 3", "", "never", {}),
        ]
    )
    assert [one.new for one in found] == [True, False, True, True]
    assert [one.refused for one in found] == [None] * 4
    assert [one.page_id for one in found] == [found[0].page_id, "mine", all_pages(memory)[1].page_id, "of a Page"]
    first = memory.get("mine")
    assert first is not None
    assert (first.timestamp, first.metadata, first.assistant_id) == (str(moment), {"deep": [{"a": 1}]}, "rex")
    assert memory.sources() == {b"file": 7}
    assert either.add_batch([]) == []
    assert either.add_batch([marked(2), marked(1), marked(3)])[:2] == [Added(None, new=False)] * 2
    assert said(memory) == ["said 0", "said 2", "said 3", "said 3"]


WRONG: list[Any] = [
    page(1, user_id=""),
    page(1, user_input=None),
    page(1, who="?"),
    page(1, source=[b"file"]),
    page(1, source=["file", 1]),
    page(1, source=3),
    page(1, metadata={"a": 1 << 70}),
    page(1, metadata={"a": object()}),
    page(1, page_id="mine", assistant_id="another's"),
    page(1, user_input="x" * 3000),
    {"user_id": "tom"},
    None,
    7,
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("face", ["pipeline", "socket"])
def test_a_page_that_can_not_be_taken_hinders_none_of_the_others(tmp_path: Path, wrong: Any, face: str) -> None:
    with (
        open_fake(tmp_path, workers=False, store__max_page_bytes=2000) as memory,
        memory if face == "pipeline" else RemoteMemory(tmp_path) as either,
    ):
        found = either.add_batch([page(0, page_id="mine"), wrong, page(2), wrong])
        assert [one.new for one in found] == [True, False, True, False]
        assert found[1].refused
        assert [one.refused is None for one in found] == [True, False, True, False]
        assert [one.new for one in either.add_batch([page(3), wrong, page(4)], stop=True)] == [True, False]
        assert said(memory) == ["said 0", "said 2", "said 3"]


def test_where_something_is_in_the_way_the_rest_is_to_be_added_again(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False, backlog__max_bytes=400) as memory, RemoteMemory(tmp_path) as remote:
        pages = [page(number, user_input="x" * 150) for number in range(9)]
        taken = len(remote.add_batch(pages, timeout=0.0))
        assert 0 < taken < 9
        for either in (memory, remote):
            with pytest.raises(BackpressureError, match=r"for 0\.\d* s"):
                either.add_batch(pages[taken:], timeout=0.01)
        assert len(all_pages(memory)) == taken
        with pytest.raises(InputError, match="timeout must be"):
            remote.add_batch(pages, timeout="soon")  # type: ignore[arg-type]


def test_a_full_disk_ends_a_batch_behind_what_it_took(
    memory: MemoryPipeline, either: Either, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, calls = Intake._accept, iter(range(100))

    def full(self: Intake, record: Any, **how: Any) -> tuple[int, bool]:
        if next(calls) >= 2:
            raise StoreFullError("no room")
        return accept(self, record, **how)

    monkeypatch.setattr(Intake, "_accept", full)
    assert [one.new for one in either.add_batch(map(page, range(5)))] == [True, True]
    with pytest.raises(StoreFullError):
        either.add_batch([page(2)])
    assert said(memory) == ["said 0", "said 1"]


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 20), st.lists(st.integers(1, 7), min_size=20, max_size=20)), max_size=5),
    resume=st.booleans(),
)
def test_a_source_is_taken_once_and_in_order_however_often_it_breaks_off(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, list[int]]], resume: bool
) -> None:
    """Each run begins anew, or where the store's marks say, in batches of any size, and breaks off somewhere."""
    with open_fake(tmp_path_factory.mktemp("store"), workers=False) as memory:
        furthest = 0
        for end, sizes in [*runs, (20, [3] * 20)]:
            place = -(-memory.sources().get(b"file", 0) // 3) if resume else 0
            for size in sizes:
                batch = [marked(number) for number in range(place, min(place + size, end))]
                new = sum(one.new for one in memory.add_batch(batch))
                assert new == max(0, len(batch) - max(0, furthest - place))
                place += len(batch)
                furthest = max(furthest, place)
        assert said(memory) == [f"said {number}" for number in range(20)]


def test_two_who_read_the_same_file_at_once_take_each_page_once(memory: MemoryPipeline) -> None:
    new = list[int]()

    def read() -> None:
        with RemoteMemory(memory._engine.store.folder.root) as remote:
            for start in range(0, 3000, 50):
                new.extend(one.new for one in remote.add_batch(map(marked, range(start, start + 50))))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(500):
        memory.add("another", f"noise {number}", "")
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sum(new) == 3000
    assert [page.user_input for page in all_pages(memory, "tom")] == [f"said {number}" for number in range(3000)]


def test_a_batch_is_flushed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes = list[None]()
    with open_fake(tmp_path, workers=False, store__durability="power") as memory:
        flush = memory._engine.intake._synced._flush

        def counted() -> int:
            flushes.append(None)
            return flush()

        monkeypatch.setattr(memory._engine.intake._synced, "_flush", counted)
        memory.add_batch(map(page, range(50)))
        assert len(flushes) == 1
        memory.add("tom", "alone", "")
        assert len(flushes) == 2


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The connections that clients have made."""
    made = list[Path]()

    def noted(path: Path, timeout_s: float) -> Any:
        made.append(path)
        return connected(path, timeout_s)

    monkeypatch.setattr(client, "connected", noted)
    return made


def test_batches_follow_one_another_on_one_connection(memory: MemoryPipeline, connections: list[Path]) -> None:
    with RemoteMemory(memory._engine.store.folder.root) as remote:
        connections.clear()
        for number in range(30):
            remote.add_batch([marked(2 * number), marked(2 * number + 1)])
        assert len(connections) == 1
        assert remote.users() == ["tom"]  # any other question has one of its own
        assert len(connections) == 2
        with pytest.raises(InputError):
            remote.add_batch([page(0)], timeout=float("nan"))
        assert len(remote.add_batch([page(60)])) == 1  # after an error there is a new one
    assert len(all_pages(memory)) == 61


def test_a_connection_that_was_not_used_for_long_is_given_up_by_both_ends(
    memory: MemoryPipeline, connections: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.KEEP_S < server.NEXT_S, "the client must be the first to give it up"
    with RemoteMemory(memory._engine.store.folder.root) as remote:
        monkeypatch.setattr(client, "KEEP_S", 0.0)
        connections.clear()
        remote.add_batch([page(0)])
        remote.add_batch([page(1)])
        assert len(connections) == 2
        monkeypatch.setattr(server, "NEXT_S", 0.05)
        monkeypatch.setattr(client, "KEEP_S", PATIENCE_S)
        remote.add_batch([page(2)])
        assert remote._kept is not None
        assert comes(remote._kept[0], time.monotonic() + PATIENCE_S), "the owner keeps it"
        with pytest.raises(StoreError, match="went away before it had answered add_batch"):
            remote.add_batch([page(3)])
        assert remote.add_batch([page(3)])[0].new


def test_closing_waits_for_no_client_that_may_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "NEXT_S", 3600.0)
    monkeypatch.setattr("mos_pipeline.pipeline.SOCKET_ENDS_S", PATIENCE_S)
    cut = list[None]()
    end = server.OwnerServer.end

    def noted(self: server.OwnerServer, timeout_s: float) -> None:
        for thread in list(self._clients):
            thread.join(timeout_s)
            cut.extend([None] * thread.is_alive())
        end(self, timeout_s)

    monkeypatch.setattr(server.OwnerServer, "end", noted)
    memory = open_fake(tmp_path, workers=False)
    with RemoteMemory(tmp_path) as remote:
        remote.add_batch([page(0)])
        memory.close()
        assert not cut
        assert not [thread for thread in threading.enumerate() if thread.name == "mos-owner-client"]
        with pytest.raises((StoreError, ClosedError)):
            remote.add_batch([page(1)])
    with open_fake(tmp_path, workers=False) as memory:
        assert said(memory) == ["said 0"]
