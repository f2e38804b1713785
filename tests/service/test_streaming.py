"""An answer in pieces over the owner's socket: each comes when it is there, and what was seen is what is kept."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import InputError, MemoryPipeline, MosError, StoreError, WorkerError
from mos_pipeline.service import server
from mos_pipeline.service.client import RemoteMemory
from mos_pipeline.service.protocol import send
from tests.faults.common import PATIENCE_S, until
from tests.support import all_pages, open_fake

QUESTION = "which beagle did I adopt?"


class Script:
    """A model that says its pieces; at None it waits until it may go on."""

    def __init__(self, *pieces: str | Exception | None) -> None:
        self.pieces = pieces
        self.may_go_on = threading.Event()
        self.ended = threading.Event()

    def __call__(self, *_: Any) -> Iterator[str]:
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                if piece is None:
                    assert self.may_go_on.wait(PATIENCE_S)
                else:
                    yield piece
        finally:
            self.ended.set()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryPipeline]:
    with open_fake(tmp_path / "store", workers=False, retrieval__timeout_s=0.1) as memory:
        memory.add("tom", "I adopted a beagle named Rex.", "Lovely!")
        yield memory


@pytest.fixture
def remote(memory: MemoryPipeline) -> Iterator[RemoteMemory]:
    with RemoteMemory(memory._engine.store.folder.root) as remote:
        yield remote


@pytest.fixture
def says(memory: MemoryPipeline, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Script]:
    """Have the owner's answers written by a script."""

    def written(*pieces: str | Exception | None) -> Script:
        script = Script(*pieces)
        monkeypatch.setattr(memory, "respond_stream", partial(MemoryPipeline.respond_stream, memory, model=script))
        return script

    return written


def answers(memory: MemoryPipeline) -> list[str]:
    return [page.agent_response for page in all_pages(memory)[1:]]


def test_each_piece_comes_when_it_is_there(
    memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script]
) -> None:
    script = says("You ", "adopted ", None, "Rex.")
    with remote.respond_stream("tom", QUESTION, metadata={"channel": "web"}) as stream:
        assert [next(stream), next(stream)] == ["You", " adopted"]
        assert not script.ended.is_set()
        assert stream.response is None
        script.may_go_on.set()
        assert list(stream) == [" Rex."]
        assert list(stream) == []
    assert stream.response is not None
    assert (stream.response.text, stream.response.complete) == ("You adopted Rex.", True)
    page = all_pages(memory)[-1]
    assert (page.page_id, page.agent_response) == (stream.response.page_id, "You adopted Rex.")
    assert page.metadata == {"channel": "web"}


def test_without_a_model_the_quotes_come_as_one_piece(memory: MemoryPipeline, remote: RemoteMemory) -> None:
    pieces = list(stream := remote.respond_stream("tom", QUESTION, remember=False))
    assert stream.response is not None
    assert pieces == [stream.response.text]
    assert answers(memory) == []


def test_closed_before_its_end_what_was_seen_is_kept(
    memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script]
) -> None:
    script = says("You ", "adopted ", "Rex.")
    entered = list[str]()
    with remote.respond_stream("tom", QUESTION) as stream:
        stream.guard = partial(noted, entered)
        next(stream)
    assert entered == ["in", "out"]
    assert script.ended.wait(PATIENCE_S)
    assert stream.response is not None
    assert (stream.response.text, stream.response.complete) == ("You", False)
    assert answers(memory) == ["You"]
    assert list(stream) == []


@contextlib.contextmanager
def noted(entered: list[str]) -> Iterator[None]:
    entered.append("in")
    yield
    entered.append("out")


def test_a_piece_that_crossed_when_it_was_closed_was_not_seen(
    memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script]
) -> None:
    says("You ", "adopted ", "Rex.")
    with remote.respond_stream("tom", QUESTION) as stream:
        next(stream)
        send(stream._connection, ["next"], time.monotonic() + PATIENCE_S)  # and then a signal came
    assert answers(memory) == ["You"]


def test_closed_before_the_first_piece_nothing_is_kept(
    memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script]
) -> None:
    says("You ", "adopted ", "Rex.")
    with remote.respond_stream("tom", QUESTION) as stream:
        pass
    assert stream.response is None
    assert answers(memory) == []


def test_of_a_client_that_is_gone_nothing_is_kept_and_the_model_is_given_up(
    memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script]
) -> None:
    script = says("You ", "adopted ", "Rex.")
    stream = remote.respond_stream("tom", QUESTION)
    next(stream)
    stream._connection.close()
    assert script.ended.wait(PATIENCE_S)
    assert answers(memory) == []


def test_of_a_client_that_asks_no_more_nothing_is_kept(
    memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PIECE_S", 0.2)
    script = says("You ", "adopted ", "Rex.")
    stream = remote.respond_stream("tom", QUESTION)
    next(stream)
    assert script.ended.wait(PATIENCE_S)
    with pytest.raises(StoreError):
        next(stream)
    assert stream.response is None
    assert answers(memory) == []


def test_a_fault_is_the_client_s_and_nothing_is_kept(
    memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script]
) -> None:
    for fault, kind in ((WorkerError("the endpoint is away"), WorkerError), (RuntimeError("broken"), MosError)):
        says("You ", "adopted ", fault)
        stream = remote.respond_stream("tom", QUESTION)
        assert next(stream) == "You"
        next(stream)
        with pytest.raises(kind, match=r"away|unexpectedly"):
            next(stream)
        assert list(stream) == []
        stream.close()
        assert stream.response is None
    with pytest.raises(InputError, match="user_id"):
        remote.respond_stream("", QUESTION)
    assert answers(memory) == []
    assert remote.respond("tom", QUESTION).text


def test_no_other_word_is_taken(memory: MemoryPipeline, remote: RemoteMemory, says: Callable[..., Script]) -> None:
    script = says("You ", "adopted ", "Rex.")
    stream = remote.respond_stream("tom", QUESTION)
    next(stream)
    with contextlib.closing(stream._connection), pytest.raises(InputError, match="next or close"):
        stream._taken(stream._ask(message=["more"], wait_s=PATIENCE_S))
    assert script.ended.wait(PATIENCE_S)
    assert answers(memory) == []


def test_the_owner_closed_amid_an_answer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = open_fake(tmp_path, workers=False, retrieval__timeout_s=0.1)
    script = Script("You ", "adopted ", "Rex.")
    monkeypatch.setattr(memory, "respond_stream", partial(MemoryPipeline.respond_stream, memory, model=script))
    with RemoteMemory(tmp_path) as remote:
        stream = remote.respond_stream("tom", QUESTION)
        next(stream)
        memory.close()
        with pytest.raises(MosError):
            list(stream)
        assert stream.response is None
    until(script.ended.is_set, "the model is given up")
