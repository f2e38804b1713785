from __future__ import annotations

import errno
import logging
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numkong
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from mos_pipeline.errors import ClosedError, InputError, StoreFullError
from mos_pipeline.runtime.shared_memory import SHM_FOLDER, attach
from mos_pipeline.runtime.slabs import row_bytes, vectors_of
from mos_pipeline.runtime.vector_pool import VectorPool

D = 16
SLAB = 64 * row_bytes(D)  # 64 rows


def vectors(n: int, seed: int = 0, width: int = D) -> npt.NDArray[np.float16]:
    made = np.random.default_rng(seed).standard_normal((n, width))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float16)


def fill(pool: VectorPool, owner: int, tags: list[int], seed: int = 0) -> npt.NDArray[np.int64]:
    rows = pool.allocate(owner, len(tags))
    pool.write(rows, vectors(len(tags), seed))
    pool.commit(rows, tags)
    return rows


def found(pool: VectorPool, owner: int) -> list[int]:
    return sorted(pool.scores(owner, vectors(1)[0])[0].tolist())


def hold_the_kernel(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Make searches stop in their kernel: the first event tells that one is there, the second lets it go on."""
    inside, go_on = threading.Event(), threading.Event()
    kernel: Any = numkong.cdist

    def held(*args: Any, **options: Any) -> Any:
        inside.set()
        assert go_on.wait(10)
        return kernel(*args, **options)

    monkeypatch.setattr(numkong, "cdist", held)
    return inside, go_on


@pytest.fixture
def pool() -> Iterator[VectorPool]:
    made = VectorPool(D, SLAB)
    yield made
    made.close()


def test_scores_are_the_cosines_of_the_owners_rows(pool: VectorPool) -> None:
    for owner, n in ((1, 150), (2, 3)):
        fill(pool, owner, list(range(owner * 1000, owner * 1000 + n)), seed=owner)
    query = vectors(1, seed=9)[0]
    tags, cosines = pool.scores(1, query)
    assert (tags.dtype.name, cosines.dtype.name) == ("int64", "float32")
    expected = vectors(150, seed=1).astype(np.float64) @ query.astype(np.float64)
    assert dict(zip(tags.tolist(), cosines, strict=True)) == pytest.approx(
        dict(enumerate(expected, start=1000)), abs=1e-5
    )
    assert found(pool, 2) == [2000, 2001, 2002]
    assert found(pool, 3) == []


def test_a_row_is_found_from_its_commit_to_its_release(pool: VectorPool) -> None:
    rows = pool.allocate(1, 3)
    assert found(pool, 1) == []
    pool.write(rows, vectors(3))
    pool.commit(rows[:2], [10, 11])
    assert found(pool, 1) == [10, 11]
    pool.release(rows[1:])
    assert found(pool, 1) == [10]
    assert pool.usage.used == 1


def test_another_process_writes_by_address(pool: VectorPool) -> None:
    rows = pool.allocate(1, 100)
    made = vectors(100)
    for row, vector in zip(rows.tolist(), made, strict=True):
        name, inner = pool.address(row)
        vectors_of(attach(name), D)[inner] = vector
    assert len({pool.address(row) for row in rows.tolist()}) == 100
    assert np.array_equal(pool.read(rows), made)
    assert np.array_equal(pool.read(rows[::-7]), made[::-7])


def test_one_owners_rows_lie_together(pool: VectorPool) -> None:
    mine: list[int] = []
    for i in range(40):
        mine += fill(pool, 1, [i]).tolist()
        fill(pool, 2, [i])
    runs = 1 + int((np.diff(np.sort(mine)) != 1).sum())
    assert runs <= 5  # 8 + 8 + 8 + 8 + 8 rows, not 40 single ones


def test_freed_rows_are_used_again(pool: VectorPool) -> None:
    for owner in range(8):
        fill(pool, owner, list(range(20)))
    before = pool.usage
    for owner in range(8):
        pool.free(owner)
    assert pool.usage.used == 0
    fill(pool, 99, list(range(150)))
    assert pool.usage.allocated == before.allocated
    assert found(pool, 99) == list(range(150))
    assert found(pool, 3) == []


def test_free_leaves_rows_that_are_still_being_written(pool: VectorPool) -> None:
    fill(pool, 1, [1, 2])
    writing = pool.allocate(1, 2)
    pool.free(1)
    assert not set(pool.allocate(2, 200).tolist()) & set(writing.tolist())
    pool.commit(writing, [3, 4])
    assert found(pool, 1) == [3, 4]


def test_a_released_row_waits_for_searches_that_began_before(pool: VectorPool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fill(pool, 1, [1, 2], seed=5)
    inside, go_on = hold_the_kernel(monkeypatch)
    answers: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    query = vectors(2, seed=5)[0]
    thread = threading.Thread(target=lambda: answers.append(pool.scores(1, query)))
    thread.start()
    assert inside.wait(10)
    pool.release(rows)
    others = pool.allocate(1, 30)
    assert not set(others.tolist()) & set(rows.tolist())
    pool.write(others, np.zeros((30, D), np.float16))
    go_on.set()
    thread.join()
    assert answers[0][1].max() == pytest.approx(1.0, abs=1e-3)  # the row it was asked for, not a later one's zeros
    monkeypatch.undo()
    assert set(rows.tolist()) <= set(pool.allocate(1, 60).tolist())


def test_close_waits_for_a_search_and_removes_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(SHM_FOLDER.glob(f"mos-{os.getpid()}-*"))
    pool = VectorPool(D, SLAB)
    fill(pool, 1, list(range(300)))
    inside, go_on = hold_the_kernel(monkeypatch)
    sizes: list[int] = []
    searching = threading.Thread(target=lambda: sizes.append(pool.scores(1, vectors(1)[0])[0].size))
    searching.start()
    assert inside.wait(10)
    closing = threading.Thread(target=pool.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    searching.join()
    closing.join()
    pool.close()
    assert sizes == [300]
    assert sorted(SHM_FOLDER.glob(f"mos-{os.getpid()}-*")) == before
    with pytest.raises(ClosedError):
        pool.allocate(1, 1)
    with pytest.raises(ClosedError):
        pool.scores(1, vectors(1)[0])


def test_rows_that_are_not_given_out_are_refused(pool: VectorPool) -> None:
    rows = fill(pool, 1, [1, 2])
    for wrong in (rows, np.array([40])):
        with pytest.raises(InputError, match="can't be committed"):
            pool.commit(wrong, np.arange(wrong.size))
    pool.release(rows)
    for again in (rows, pool.allocate(1, 1).repeat(2)):
        with pytest.raises(InputError, match="can't be released"):
            pool.release(again)
    with pytest.raises(InputError, match="can't be committed"):
        pool.commit(pool.allocate(1, 1), [-1])


def no_room(fd: int, offset: int, size: int) -> None:
    if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(SHM_FOLDER):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, size)


def test_small_shared_memory_is_an_error_without_a_folder(monkeypatch: pytest.MonkeyPatch, pool: VectorPool) -> None:
    rows = fill(pool, 1, list(range(60)))
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(StoreFullError, match=r"/dev/shm: no room for a block of 2560 bytes"):
        pool.allocate(2, 60)
    assert pool.usage.used == 60
    assert found(pool, 2) == []
    pool.release(rows[:8])
    assert pool.allocate(1, 10).size == 10  # what there is goes on being given out


def test_small_shared_memory_falls_back_to_files_and_warns_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    pool = VectorPool(D, SLAB, tmp_path)
    with caplog.at_level(logging.WARNING):
        fill(pool, 1, list(range(200)))
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "/dev/shm" in caplog.text
    assert str(tmp_path) in caplog.text
    assert pool.usage.file_backed
    assert len(list(tmp_path.iterdir())) == pool.usage.slabs >= 4
    assert attach(pool.address(0)[0]).any()
    assert found(pool, 1) == list(range(200))
    pool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_vector_wider_than_a_slab_still_gets_rows() -> None:
    pool = VectorPool(D, 16)
    assert pool.allocate(1, 20).size == 20
    assert pool.usage == (20, 24, 20 * D * 2, 24 * D * 2, 3, False)
    pool.close()


def test_bookkeeping_of_a_million_rows_stays_small() -> None:
    pool = VectorPool(4, 4 << 20)
    tracemalloc.start()
    for _ in range(5):
        for owner in range(1000):
            rows = pool.allocate(owner, 200)
            pool.commit(rows, rows)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pool.usage.used == 1_000_000
    assert size <= 16 * 1_000_000
    pool.close()


def test_many_threads_at_once() -> None:
    pool = VectorPool(D, SLAB)
    wrong: list[object] = []

    def work(owner: int) -> None:
        # Every vector of this owner is the same: a foreign or half-written row would show.
        mine = vectors(1, seed=owner)[0]
        for turn in range(60):
            rows = pool.allocate(owner, 5)
            pool.write(rows, np.tile(mine, (5, 1)))
            pool.commit(rows, np.arange(5) + 5 * turn)
            tags, cosines = pool.scores(owner, mine)
            if len(set(tags.tolist())) != tags.size or abs(cosines - 1).max() > 0.01:
                wrong.append((owner, turn, tags, cosines))
            if turn % 7 == 6:
                pool.free(owner)

    threads = [threading.Thread(target=work, args=(owner,)) for owner in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    pool.close()


class PoolLaws(RuleBasedStateMachine):
    """The pool against a dict: rows given out never overlap, and exactly the committed ones are found."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = VectorPool(D, SLAB)
        self.taken: dict[int, int] = {}  # row -> owner
        self.committed: dict[int, tuple[int, int]] = {}  # row -> owner, tag
        self.tag = 0

    rows = Bundle("rows")
    owners = st.integers(0, 5)

    @rule(target=rows, owner=owners, count=st.one_of(st.integers(0, 12), st.integers(0, 200)))
    def allocate(self, owner: int, count: int) -> object:
        got = self.pool.allocate(owner, count).tolist()
        assert len(set(got)) == count
        assert not set(got) & (self.taken.keys() | self.committed.keys())
        self.taken.update(dict.fromkeys(got, owner))
        return multiple(*(tuple(got[i : i + 9]) for i in range(0, count, 9)))

    @rule(rows=rows)
    def commit(self, rows: tuple[int, ...]) -> None:
        if not all(row in self.taken for row in rows):
            return
        tags = list(range(self.tag, self.tag + len(rows)))
        self.tag += len(rows)
        self.pool.commit(rows, tags)
        self.committed.update({row: (self.taken.pop(row), tag) for row, tag in zip(rows, tags, strict=True)})

    @rule(rows=consumes(rows))
    def release(self, rows: tuple[int, ...]) -> None:
        if all(row in self.taken for row in rows) or all(row in self.committed for row in rows):
            self.pool.release(rows)
            for row in rows:
                self.taken.pop(row, None)
                self.committed.pop(row, None)

    @rule(owner=owners)
    def free(self, owner: int) -> None:
        self.pool.free(owner)
        self.committed = {row: kept for row, kept in self.committed.items() if kept[0] != owner}

    @invariant()
    def exactly_the_committed_rows_are_found(self) -> None:
        for owner in range(6):
            assert found(self.pool, owner) == sorted(tag for who, tag in self.committed.values() if who == owner)
        assert self.pool.usage.used == len(self.taken) + len(self.committed)

    def teardown(self) -> None:
        everything = list(self.taken) + list(self.committed)
        self.pool.release(everything)
        assert self.pool.usage.used == 0
        slabs = self.pool.usage.slabs
        for _ in range(slabs):
            self.pool.allocate(7, 64)
        assert self.pool.usage.slabs == slabs  # nothing leaked: all of it can be given out again
        self.pool.close()


TestPoolLaws = PoolLaws.TestCase
TestPoolLaws.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
