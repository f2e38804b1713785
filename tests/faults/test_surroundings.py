"""What happens around a store: files go, rights are missing, clocks jump, memory ends, readers come in crowds."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline, arguments, config
from mos_pipeline.errors import StoreDamagedError, StoreError
from mos_pipeline.runtime.worker import Stage
from mos_pipeline.stages.backend import Prepared, Vectors
from mos_pipeline.stages.embed import EmbedStage
from mos_pipeline.stages.fake_backend import FakeBackend
from mos_pipeline.stages.tasks import TaskStage
from tests.faults.common import PATIENCE_S, check_consistent, check_found, check_order, fill, nothing_left
from tests.powerloss.owner import owner
from tests.support import all_pages, open_fake

NOBODY = 65534
READERS = 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store whose pages are in segments, but for the last two, which only a journal has."""
    path = tmp_path_factory.mktemp("made") / "store"
    with pytest.MonkeyPatch.context() as patch, owner(path, patch) as memory:
        fill(memory, 40)
        memory.wait_idle(PATIENCE_S)
    with open_fake(path, workers=False) as memory:
        fill(memory, 2, first=40)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def accepted_by(memory: MemoryPipeline) -> dict[str, list[str]]:
    return {user: [page.page_id for page in all_pages(memory, user)] for user in memory.users()}


@pytest.mark.parametrize("name", ["LOCK", "aside", "pins", "pins/*", "VECTORS"])
def test_what_holds_no_pages_may_be_deleted(store: Path, name: str) -> None:
    for path in store.glob(name):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for _ in range(2):
        with open_fake(store, workers=False) as memory:
            assert memory.stats().pages == 42
            assert not memory.stats().damage
    with open_fake(store, read_only=True, workers=False) as memory:
        assert memory.stats().pages == 42


@pytest.mark.parametrize("name", ["MANIFEST", "segments/*", "segments"])
def test_what_holds_pages_is_missed_and_named(store: Path, name: str) -> None:
    for path in store.glob(name):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"backup|not be read|no store|missing|not be opened"):
            open_fake(store, workers=False, read_only=read_only)
    assert (store / "journal").is_dir(), "what is left is left alone"


def test_a_deleted_journal_costs_the_pages_that_no_segment_has(store: Path) -> None:
    shutil.rmtree(store / "journal")
    with open_fake(store, workers=False) as memory:
        assert memory.stats().pages == 40
        fill(memory, 3, first=50)
        assert memory.stats().pages == 43


def test_segments_deleted_under_an_open_store_are_told_and_stop_nobody(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with owner(store, monkeypatch) as memory:
        memory.wait_idle(PATIENCE_S)
        for path in (store / "segments").iterdir():
            path.unlink()
        fill(memory, 3, first=50)
        assert memory.stats().pages == 45
        assert not memory.verify().ok
    with pytest.raises(StoreDamagedError, match="the segment is missing"):
        open_fake(store, workers=False)


@contextmanager
def without_rights(store: Path) -> Iterator[None]:
    """Be nobody, where this process may do all that it likes; nobody may come as far as the store."""
    if os.geteuid():
        yield
        return
    closed = [path for path in store.parents if path.stat().st_mode & 0o011 != 0o011]
    modes = [path.stat().st_mode for path in closed]
    for path, mode in zip(closed, modes, strict=True):
        path.chmod(mode | 0o011)  # its group is still ours
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in zip(closed, modes, strict=True):
            path.chmod(mode)


@pytest.mark.parametrize("name", [".", "MANIFEST", "LOCK", "journal", "segments"])
def test_missing_rights_are_told_with_the_path(store: Path, name: str) -> None:
    with open_fake(store, workers=False):
        pass  # whatever has to be imported is
    for path in (store, *store.rglob("*")):  # all rights to everybody, but for the one
        path.chmod(0o777)
    (store / name).chmod(0)
    with without_rights(store), pytest.raises(StoreError, match=re.escape(str(store / name))):
        open_fake(store, workers=False)
    (store / name).chmod(0o777)
    with open_fake(store, workers=False) as memory:
        assert memory.stats().pages == 42


@pytest.mark.parametrize("hours", [-1_000_000, -1, 1, 1_000_000])
def test_clocks_may_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """The order is that of acceptance, and deadlines are those of a clock that does not jump."""
    real, shift = time.time, 0.0
    with owner(tmp_path / "store", monkeypatch) as memory:
        monkeypatch.setattr(memory._engine.visits, "_clock", lambda: real() + shift)
        monkeypatch.setattr(memory._engine.promotion, "_clock", lambda: real() + shift)
        fill(memory, 20)
        memory.wait_idle(PATIENCE_S)
        check_found(memory, all_pages(memory)[:3])
        shift = 3600.0 * hours

        class Jumped(datetime):
            @classmethod
            def now(cls, tz: object = None) -> Jumped:
                return cls.fromtimestamp(max(0.0, min(real() + shift, 2e11)), UTC)

        monkeypatch.setattr(arguments, "datetime", Jumped)
        fill(memory, 20, first=20)
        memory.wait_idle(PATIENCE_S)
        check_found(memory, all_pages(memory)[::8])
        check_consistent(memory)
        accepted = accepted_by(memory)
        heats = [session.heat for user in memory.users() for session in memory.sessions(user)]
        assert all(0 <= heat < 1000 for heat in heats)
    with open_fake(tmp_path / "store", workers=False) as memory:
        check_order(memory, accepted)


class _Dying(FakeBackend):
    def encode(self, items: Sequence[Prepared]) -> Vectors:
        raise MemoryError


class _Report:
    def __init__(self) -> None:
        self.failures: list[str] = []

    def started(self, unit_ids: Sequence[int]) -> None: ...

    def done(self, unit_id: int, result: object) -> None: ...

    def failed(self, unit_id: int, message: str) -> None:
        self.failures.append(message)

    def metered(self, told: Mapping[str, object]) -> None:
        raise AssertionError("it calls no model")

    def endpoint(self, down_since: float | None) -> None:
        raise AssertionError("it asks no endpoint")


def _embedder() -> Stage:
    stage = EmbedStage(config.Embedding(backend="fake"), backend=FakeBackend(config.Embedding(backend="fake")))
    stage.prepare()
    stage._backend = _Dying(config.Embedding(backend="fake"))
    stage.accept(1, "query", ["some text"])
    return stage


def _task() -> Stage:
    stage = TaskStage(config.Llm(), config.LongTerm())
    stage.prepare()
    stage.accept(1, "promotion", {"profile": "", "pages": [_Hungry()]})
    return stage


class _Hungry:
    def __iter__(self) -> Iterator[str]:
        raise MemoryError


@pytest.mark.parametrize("make", [_embedder, _task])
def test_a_worker_without_memory_ends_and_blames_no_page(make: object) -> None:
    """It would refuse page after page, each of which would be set aside for good."""
    assert callable(make)
    stage, report = make(), _Report()
    with pytest.raises(MemoryError):
        stage.step(report)
    assert not report.failures


def test_two_hundred_readers_of_one_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_left(), owner(store, monkeypatch) as memory, ExitStack() as stack:
        readers = [
            stack.enter_context(open_fake(store, read_only=True, workers=False, store__text_cache_bytes=0))
            for _ in range(READERS)
        ]
        assert {reader.stats().pages for reader in readers} == {42}
        fill(memory, 10, first=60)
        memory.wait_idle(PATIENCE_S)
        memory.forget("ann")
        memory.compact(PATIENCE_S)
        expected = [page.page_id for page in all_pages(memory)]
        for reader in readers[::20]:
            reader.refresh()
            assert [page.page_id for page in all_pages(reader)] == expected
        for reader in readers[1::50]:
            assert reader.stats().pages == 42, "it reads what it has opened until it looks again"
