"""Vectors that are searched where their owner has them."""

from __future__ import annotations

import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numkong
import numpy as np
import numpy.typing as npt
import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.engine.view import View
from mos_pipeline.runtime.attached_rows import AttachedRows
from mos_pipeline.runtime.shared_memory import sweep
from mos_pipeline.runtime.slabs import row_bytes, shown_slabs
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.store.folder import StoreFolder
from tests.faults.common import until
from tests.faults.processes import ROOT
from tests.readers.common import SETTINGS, fill, open_reader, settled, told
from tests.support import open_fake

D = 16
SLAB = 64 * row_bytes(D)
QUERY = np.eye(D, dtype=np.float16)[0]


def vector(tag: int) -> npt.NDArray[np.float16]:
    """Return a vector by whose product with QUERY its tag is known."""
    found = np.zeros(D, np.float16)
    found[0] = tag / 1024
    return found


def put(pool: VectorPool, owner: int, tags: list[int], *, shown: bool = True) -> npt.NDArray[np.int64]:
    rows = pool.allocate(owner, len(tags))
    pool.write(rows, np.array([vector(tag) for tag in tags]).reshape(len(tags), D))
    pool.commit(rows, tags, shown=shown)
    return rows


def ask(attached: AttachedRows, tags: list[int]) -> dict[int, float]:
    found, products = attached.look(1024).scores(np.array(tags, np.int64), QUERY)
    return dict(zip(found.tolist(), (products * 1024).tolist(), strict=True))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[VectorPool]:
    made = VectorPool(D, SLAB, shown=tmp_path / "VECTORS")
    yield made
    made.close()


def test_shown_rows_are_found_and_others_are_not(tmp_path: Path, pool: VectorPool) -> None:
    attached = AttachedRows(tmp_path / "VECTORS", D)
    assert ask(attached, [1, 2]) == {}
    put(pool, 0, [1, 2, 3])
    put(pool, 0, [4, 5], shown=False)
    put(pool, 1, list(range(10, 200)))  # more blocks come
    assert ask(attached, [1, 2, 3, 4, 5]) == {1: 1, 2: 2, 3: 3}
    assert ask(attached, [2, 900]) == {2: 2}
    assert ask(attached, list(range(10, 200))) == {tag: tag for tag in range(10, 200)}
    assert ask(AttachedRows(tmp_path / "VECTORS", D + 1), [1]) == {}
    assert ask(AttachedRows(tmp_path / "VECTORS", D, generation=1), [1]) == {}, "another model's"


def test_a_row_that_is_another_pages_by_now_is_left_out(tmp_path: Path, pool: VectorPool) -> None:
    attached = AttachedRows(tmp_path / "VECTORS", D)
    rows = put(pool, 0, [1, 2])
    seen = attached.look(1024)
    pool.release(rows)
    reused = put(pool, 1, [8, 9])  # another user's
    assert sorted(reused.tolist()) == sorted(rows.tolist())
    assert [len(part) for part in seen.scores(np.array([1, 2]), QUERY)] == [0, 0]
    assert ask(attached, [1, 2]) == {}
    assert ask(attached, [8, 9]) == {8: 8, 9: 9}


def test_a_row_that_becomes_another_pages_during_the_search_is_left_out(
    tmp_path: Path, pool: VectorPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached = AttachedRows(tmp_path / "VECTORS", D)
    (row,), _ = put(pool, 0, [1]), put(pool, 0, [2])
    seen = attached.look(1024)
    cdist = numkong.cdist

    def slow(*arguments: Any, **options: Any) -> Any:
        pool.release([row])
        put(pool, 0, [7])
        return cdist(*arguments, **options)

    monkeypatch.setattr(numkong, "cdist", slow)
    found, products = seen.scores(np.array([1, 2]), QUERY)
    assert (found.tolist(), (products * 1024).tolist()) == ([2], [2])


def test_whatever_happens_to_rows_a_page_is_found_by_its_own_vector_alone(tmp_path: Path, pool: VectorPool) -> None:
    rng, attached, present = random.Random(1), AttachedRows(tmp_path / "VECTORS", D), dict[int, tuple[int, int]]()
    tags = iter(range(1, 1024))
    seen, at_look = attached.look(1024), dict(present)
    for _ in range(300):
        owner = rng.randrange(3)
        mine = [tag for tag, (whose, _) in present.items() if whose == owner]
        if rng.random() < 0.5 and len(present) < 200:
            new = [tag for tag, _ in zip(tags, range(rng.randrange(1, 6)), strict=False)]
            present |= {tag: (owner, row) for tag, row in zip(new, put(pool, owner, new).tolist(), strict=True)}
        elif mine:
            gone = rng.sample(mine, rng.randint(1, len(mine)))
            pool.release([present.pop(tag)[1] for tag in gone])
        if rng.random() < 0.3:
            seen, at_look = attached.look(1024), dict(present)
        wanted = sorted(tag for tag, (whose, _) in at_look.items() if whose == owner)
        found, products = seen.scores(np.array(wanted, np.int64), QUERY)
        assert sorted(found.tolist()) == [tag for tag in wanted if tag in present]
        assert (products * 1024).tolist() == found.tolist()


def test_blocks_of_a_dead_owner_are_left_to_be_swept(tmp_path: Path) -> None:
    path = tmp_path / "VECTORS"
    program = (
        "import sys, time; from pathlib import Path; from tests.readers.test_in_place import *\n"
        "pool = VectorPool(D, SLAB, shown=Path(sys.argv[1])); put(pool, 0, [1]); print('there', flush=True)\n"
        "time.sleep(600)"
    )
    early = AttachedRows(path, D)
    with subprocess.Popen([sys.executable, "-c", program, path], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"there\n"
        assert ask(early, [1]) == {1: 1}
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        shown = shown_slabs(path)
        assert shown is not None
        assert ask(AttachedRows(path, D), [1]) == {}
        assert ask(early, [1]) == {1: 1}  # mapped before
        until(lambda: sweep() or not Path("/dev/shm", shown.names[0]).exists(), "the block is swept")
        assert ask(early, [1]) == {1: 1}


def test_the_file_that_names_the_blocks_is_private_and_goes_with_them(tmp_path: Path) -> None:
    path = tmp_path / "VECTORS"
    path.write_bytes(b"of an owner that is dead")
    pool = VectorPool(D, SLAB, shown=path)
    assert not path.exists()
    for owner in range(3):
        put(pool, owner, list(range(100 * owner, 100 * owner + 60)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = shown_slabs(path)
    assert shown is not None
    assert len(shown.names) == pool.usage.slabs
    pool.close()
    assert not path.exists()
    path.write_bytes(b"no such thing")
    assert shown_slabs(path) is None


def view_of(reader: MemoryPipeline) -> View:
    with reader._reading() as view:
        assert isinstance(view, View)
        return view


def test_no_pages_vector_is_copied_beside_an_owner(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as owner:
        fill(owner, "tom", range(30))
        settled(owner)
        with open_reader(tmp_path) as reader:
            vectors = view_of(reader).vectors
            assert vectors is not None
            assert vectors.in_place == 30
            facts = sum(len(reader.knowledge("tom", about=about)) for about in ("user", "assistant"))
            assert vectors.copies.usage.used == len(reader.sessions("tom")) + facts
            assert told(reader, visits=False) == told(owner, visits=False)
            fill(owner, "ann", range(30, 50))
            settled(owner)
            reader.refresh()
            assert vectors.in_place == 50
            assert told(reader, visits=False) == told(owner, visits=False)


def test_vectors_move_between_copies_and_an_owners_blocks(tmp_path: Path) -> None:
    with open_fake(tmp_path, **SETTINGS) as owner:
        fill(owner, "tom", range(20))
        settled(owner)
        expected = told(owner, visits=False)
    assert not StoreFolder(tmp_path).vectors.exists()
    with open_reader(tmp_path) as reader:
        assert told(reader, visits=False) == expected
        vectors = view_of(reader).vectors
        assert vectors is not None
        copied = vectors.copies.usage.used
        assert vectors.in_place == 0
        with open_fake(tmp_path, **SETTINGS) as owner:
            settled(owner)
            reader.refresh()
            assert (vectors.in_place, vectors.copies.usage.used) == (20, copied - 20)
            assert told(reader, visits=False) == expected
        reader.refresh()
        assert vectors.in_place == 20  # the owner has closed: the blocks stay for as long as somebody has them
        assert told(reader, visits=False) == expected


def test_a_forgotten_pages_row_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    """Before the reader's refresh the row is another user's already."""
    with open_fake(tmp_path, **SETTINGS) as owner:
        fill(owner, "tom", range(8))
        settled(owner)
        with open_reader(tmp_path) as reader:
            before = reader.retrieve("tom", "number3 harbour", k=8).pages
            assert all(hit.dense is not None for hit in before)
            owner.forget("tom")
            fill(owner, "ann", range(8, 24))
            settled(owner)
            found = reader.retrieve("tom", "number3 harbour", k=8)
            assert {hit.page.user_id for hit in found.pages} == {"tom"}  # not refreshed: found by their words
            assert all(hit.dense is None for hit in found.pages)
            reader.refresh()
            assert reader.retrieve("tom", "number3 harbour", k=8).pages == []
            assert told(reader, visits=False) == told(owner, visits=False)
