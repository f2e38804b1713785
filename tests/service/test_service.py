"""The owner's socket: what is asked there is what the owner's methods return, and no client can do harm."""

from __future__ import annotations

import contextlib
import select
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import (
    BackpressureError,
    ClosedError,
    DeadlineError,
    InputError,
    MemoryPipeline,
    MosError,
    StoreError,
    StoreLockedError,
    errors,
)
from mos_pipeline.messages import SourceMark, encode
from mos_pipeline.metrics import Stats
from mos_pipeline.service import protocol, server
from mos_pipeline.service.client import RemoteMemory
from mos_pipeline.service.protocol import error_from, pack_error
from tests.support import all_pages, open_fake, page_text

IDLE_S = 60.0


def told(memory: Any) -> dict[str, Any]:
    """What a memory tells, by any of its faces."""
    found = memory.retrieve("tom", "number3 violin", k=4, explain=True, timeout=IDLE_S, since="2020-01-01")
    return {
        "found": found,
        "pages": memory.pages("tom", limit=500),
        "all": memory.pages(offset=3, limit=5),
        "one": memory.get(found.pages[0].page.page_id),
        "none": memory.get("none"),
        "sessions": [(one.session_id, one.page_ids, one.keywords) for one in memory.sessions("tom")],
        "profile": memory.profile("tom"),
        "knowledge": memory.knowledge("tom", about="user"),
        "users": memory.users(),
        "sources": memory.sources(),
        "stats": steady(memory.stats()),
    }


def steady(stats: Stats) -> Stats:
    """Return figures without those that are never the same twice: how much memory processes have."""
    assert stats.memory
    assert all(map(all, (worker.memory for worker in stats.workers.values())))
    workers = {role: replace(worker, memory=()) for role, worker in stats.workers.items()}
    return replace(stats, memory=0, workers=workers)


def fill(memory: Any, numbers: range) -> list[str]:
    return [memory.add("tom", *page_text(number), metadata={"number": number}) for number in numbers]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryPipeline]:
    with open_fake(tmp_path / "store", workers=False) as memory:
        yield memory


def remote_of(memory: MemoryPipeline) -> RemoteMemory:
    return RemoteMemory(memory._engine.store.folder.root)


def raw(memory: MemoryPipeline) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(memory._engine.store.folder.socket))
    connection.settimeout(IDLE_S)
    return connection


def test_a_client_is_told_what_the_owner_is(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        remote = RemoteMemory(tmp_path)
        fill(remote, range(25))
        remote.add("tom", "I live in Ghent.", "Good.", timestamp="2026-03-01", source=SourceMark(b"digest", 4))
        remote.flush()
        remote.wait_idle(IDLE_S)
        assert told(remote) == told(memory)
        assert memory.sources() == {b"digest": 5}
        assert [page.metadata.get("number") for page in all_pages(memory)][:25] == list(range(25))
        gone = memory.pages("tom", limit=1)[0].page_id
        assert remote.forget(page_id=gone) == 1
        assert memory.get(gone) is None
        assert remote.compact(IDLE_S).after > 0


def test_errors_cross_as_their_own_class(memory: MemoryPipeline) -> None:
    remote = remote_of(memory)
    for call, kind, words in (
        (lambda: remote.add("", "a", "b"), InputError, "user_id must be"),
        (lambda: remote.retrieve("tom", "q", k=0), InputError, "k must be"),
        (lambda: remote.retrieve("tom", "q", nonsense=1), InputError, "arguments it does not take"),
        (lambda: remote.wait_idle(0.0), InputError, "workers=False"),
        (lambda: remote.add("tom", "a", "b", metadata={"a": 1 << 70}), InputError, "can't be sent"),
        (lambda: remote.add("tom", "a", "b", metadata={"a": object()}), InputError, "can't be sent"),
        (lambda: remote._ask(None, "close"), InputError, "answers no 'close'"),
        (lambda: remote._ask(None, "__class__"), InputError, "answers no"),
    ):
        with pytest.raises(kind, match=words):
            call()
    assert not all_pages(memory)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_crosses(name: str) -> None:
    kind: type[MosError] = getattr(errors, name)
    _, *packed = pack_error(kind("what happened"))
    found = error_from(*packed)
    assert type(found) is kind
    assert str(found) == "what happened"
    locked = error_from(*pack_error(StoreLockedError("in use", 42))[1:])
    assert isinstance(locked, StoreLockedError)
    assert locked.pid == 42


def test_metadata_as_deep_as_a_page_may_have_them_cross(memory: MemoryPipeline) -> None:
    deep: dict[str, Any] = {}
    for _ in range(450):
        deep = {"deeper": [deep]} if len(str(deep)) % 2 else {"deeper": deep}
    remote = remote_of(memory)
    page_id = remote.add("tom", "deep", "", metadata=deep)
    page = memory.get(page_id)
    assert remote.get(page_id) == page
    assert remote.retrieve("tom", "deep", timeout=0.1).pages[0].page == page
    with pytest.raises(InputError):
        remote.add("tom", "deeper", "", metadata={"deeper": _nested(100_000)})


def _nested(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def test_an_unexpected_failure_is_told_and_the_owner_goes_on(
    memory: MemoryPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = remote_of(memory)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryPipeline, "users", lambda _: 1 // 0)
        with pytest.raises(MosError, match="ZeroDivisionError"):
            remote.users()
    fill(memory, range(1))
    assert remote.users() == ["tom"]


GARBAGE = [
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    struct.pack(">I", 5) + b"\xc1\xc1\xc1\xc1\xc1",
    struct.pack(">I", 0xFFFFFFFF) + b"x" * 100,
    struct.pack(">I", 3) + encode([1, 2]),
    struct.pack(">I", 200) + b"\x91" * 200,
    *(struct.pack(">I", len(body)) + body for body in (encode([1, "users", {}, []]), encode([99, "users", [], {}]))),
    *(struct.pack(">I", len(body)) + body for body in (encode([1, "add", [], {"source": 3}]), encode({}))),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_harms_nobody(memory: MemoryPipeline, garbage: bytes) -> None:
    with raw(memory) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
    remote_of(memory).add("tom", "still here", "")
    assert len(all_pages(memory)) == 1


def test_silent_clients_are_bounded_and_left(memory: MemoryPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 1.5)
    remote = remote_of(memory)
    silent = [raw(memory) for _ in range(server.MAX_CLIENTS + 4)]
    with pytest.raises(BackpressureError, match="ask again"):
        for _ in range(1000):  # until the server has taken them all in
            remote.users()
    memory.add("tom", "nobody waits", "")
    for connection in silent:
        assert connection.recv(1 << 16) is not None  # refused, or after its time told so
        connection.close()
    assert remote.users() == ["tom"]


def test_sixteen_clients_are_answered_at_once_and_no_more(memory: MemoryPipeline) -> None:
    remote = remote_of(memory)
    for count, refused in ((15, False), (16, True)):
        clients_gone()
        with contextlib.ExitStack() as silent:
            for _ in range(count):  # taken in before the next one, since they knock in this order
                silent.enter_context(raw(memory))
            if refused:
                with pytest.raises(BackpressureError, match="16 clients are being answered already; ask again"):
                    remote.users()
            else:
                assert remote.users() == []
    clients_gone()
    assert remote.users() == []


def clients_gone() -> None:
    """Wait until the owner has done with all that knocked."""
    for thread in threading.enumerate():
        if thread.name == "mos-owner-client":
            thread.join(IDLE_S)
            assert not thread.is_alive()


def test_a_client_that_does_not_read_is_left(memory: MemoryPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.add("tom", "x" * 4_000_000, "")
    with monkeypatch.context() as hurried, raw(memory) as connection:
        hurried.setattr(server, "ANSWER_S", 0.2)
        protocol.send(connection, [protocol.PROTOCOL, "pages", [], {}], 1e12)
        hangup = select.poll()
        hangup.register(connection, 0)
        assert hangup.poll(IDLE_S * 1000), "the connection stays open"
        received = 0
        while piece := connection.recv(1 << 20):
            received += len(piece)
        assert received < 4_000_000, "the answer was taken after all"
    assert len(remote_of(memory).pages()[0].user_input) == 4_000_000


def test_an_answer_that_is_too_long_is_an_error(memory: MemoryPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_BYTES", 5000)
    remote = remote_of(memory)
    for number in range(10):
        remote.add("tom", str(number) * 1000, "")
    with pytest.raises(InputError, match="longer than the 5000"):
        remote.pages()
    with pytest.raises(InputError, match="longer than the 5000"):
        remote.add("tom", "x" * 6000, "")
    assert len(remote.pages(limit=3)) == 3


def test_an_owner_that_hangs_is_told(memory: MemoryPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from mos_pipeline.service import client

    monkeypatch.setattr(client, "CALL_S", 0.2)
    release = threading.Event()
    monkeypatch.setattr(MemoryPipeline, "users", lambda _: release.wait(IDLE_S))
    with pytest.raises(DeadlineError, match="does it hang"):
        remote_of(memory).users()
    release.set()


def test_the_socket_is_private_and_goes_with_its_owner(tmp_path: Path) -> None:
    with open_fake(tmp_path / "store", workers=False) as memory:
        path = memory._engine.store.folder.socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()
    with pytest.raises(StoreError, match="answers on no socket"):
        RemoteMemory(tmp_path / "store")


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    store = tmp_path / ("long " * 30) / ("path " * 30)
    with open_fake(store, workers=False) as memory:
        RemoteMemory(store).add("tom", "a", "b")
        assert len(all_pages(memory)) == 1


def test_a_dead_owners_socket_is_replaced(tmp_path: Path) -> None:
    open_fake(tmp_path, workers=False).close()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "SOCKET"))
    with pytest.raises(StoreError, match="answers on no socket"):
        RemoteMemory(tmp_path)
    with open_fake(tmp_path, workers=False):
        assert RemoteMemory(tmp_path).users() == []


def test_the_socket_can_be_switched_off(tmp_path: Path) -> None:
    with open_fake(tmp_path, workers=False, runtime__socket=False):
        assert not (tmp_path / "SOCKET").exists()
        assert not any(thread.name == "mos-owner-socket" for thread in threading.enumerate())


def test_where_no_socket_can_be_had_everything_else_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "SOCKET" / "in the way").mkdir(parents=True)
    with open_fake(tmp_path, workers=False) as memory:
        memory.add("tom", "a", "b")
        assert len(all_pages(memory)) == 1
    assert "no socket can be had" in caplog.text


def test_closing_answers_what_is_under_way_and_refuses_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = open_fake(tmp_path, embedding__fake_ms_per_text=60_000, runtime__close_timeout_s=0.5)
    remote, begun, ended = remote_of(memory), threading.Event(), list[BaseException]()
    wait_idle = MemoryPipeline.wait_idle

    def noted(self: MemoryPipeline, timeout: float | None = None) -> None:
        begun.set()
        wait_idle(self, timeout)

    def wait() -> None:
        try:
            remote.wait_idle()
        except MosError as error:
            ended.append(error)

    monkeypatch.setattr(MemoryPipeline, "wait_idle", noted)
    remote.add("tom", "a", "b")
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert begun.wait(IDLE_S)
    memory.close()
    waiting.join(IDLE_S)
    assert isinstance(ended[0], ClosedError | StoreError)
    with pytest.raises(StoreError):
        remote.users()
