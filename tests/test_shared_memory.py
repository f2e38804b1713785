from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import SemLock
from pathlib import Path

import numpy as np
import pytest

from mos_pipeline.errors import StoreFullError
from mos_pipeline.runtime.channel import Channel
from mos_pipeline.runtime.shared_memory import SHM_FOLDER, Slab, attach, semaphore_prefix, sweep

SIZE = 65536


def make(kind: str, folder: Path) -> Slab:
    return Slab.create(SIZE) if kind == "shm" else Slab.create_file(SIZE, folder)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def own_blocks() -> list[Path]:
    return sorted(SHM_FOLDER.glob(f"mos-{os.getpid()}-*"))


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)


OWNER_THAT_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from multiprocessing import resource_tracker
resource_tracker.register = lambda *_: None  # its tracker would tidy up before the sweep can be watched
from mos_pipeline.runtime.shared_memory import Slab
slabs = [Slab.create(65536), Slab.create_file(65536, Path(sys.argv[1]))]
print(*(s.name for s in slabs), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["shm", "file"])
def test_what_one_side_writes_the_other_reads(kind: str, tmp_path: Path) -> None:
    slab = make(kind, tmp_path)
    other = attach(slab.name)
    assert other.size == slab.data.size == SIZE
    assert not other.any()
    other[100:104] = [1, 2, 3, 4]
    assert slab.data[100:104].tolist() == [1, 2, 3, 4]
    slab.close()
    assert other[100] == 1  # its own mapping outlives the name


@pytest.mark.parametrize("kind", ["shm", "file"])
def test_closed_block_leaves_no_name_and_no_descriptor(kind: str, tmp_path: Path) -> None:
    before = open_descriptors()
    slab = make(kind, tmp_path)
    name = slab.name
    path = SHM_FOLDER / name if kind == "shm" else Path(name)
    assert path.stat().st_mode & 0o777 == 0o600
    slab.close()
    slab.close()
    assert not path.exists()
    assert open_descriptors() == before
    with pytest.raises(FileNotFoundError):
        attach(name)


@pytest.mark.parametrize("kind", ["shm", "file"])
def test_close_with_a_living_view_says_so_and_closes_later(kind: str, tmp_path: Path) -> None:
    slab = make(kind, tmp_path)
    view = slab.data[10:20]
    with pytest.raises(BufferError):
        slab.close()
    assert view.tolist() == [0] * 10  # refused rather than unmapped under the view
    del view
    slab.close()


def test_a_block_that_was_forgotten_is_unmapped_with_its_last_view() -> None:
    ran = run_python(
        "from mos_pipeline.runtime.shared_memory import Slab\n"
        "slab = Slab.create(65536); view = slab.data[3:5]; memory = slab._mapping\n"
        "del slab; del memory; print(view.tolist()); del view"
    )
    assert ran.stdout == "[0, 0]\n"
    assert "Exception ignored" not in ran.stderr


@pytest.mark.parametrize("kind", ["shm", "file"])
def test_a_process_that_attached_does_not_destroy_the_block_by_ending(kind: str, tmp_path: Path) -> None:
    slab = make(kind, tmp_path)
    ran = run_python(
        "import sys; from mos_pipeline.runtime.shared_memory import attach; attach(sys.argv[1])[7] = 42", slab.name
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert slab.data[7] == 42
    assert attach(slab.name)[7] == 42
    slab.close()


def test_a_block_that_does_not_fit_is_refused_and_leaves_nothing() -> None:
    disk = os.statvfs(SHM_FOLDER)
    before = own_blocks()
    with pytest.raises(StoreFullError, match=r"/dev/shm: no room for a block of \d+ bytes .*--shm-size"):
        Slab.create(disk.f_frsize * disk.f_blocks * 4)
    assert own_blocks() == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreFullError, match=r"nowhere.*No such file"):
        Slab.create_file(SIZE, tmp_path / "nowhere")


def test_sweep_removes_what_a_killed_owner_left(tmp_path: Path) -> None:
    ran = run_python(OWNER_THAT_IS_KILLED, str(tmp_path))
    assert ran.returncode == -signal.SIGKILL
    shm, file = ran.stdout.split()
    assert (SHM_FOLDER / shm).exists()
    assert Path(file).exists()
    assert {shm, Path(file).name} <= set(sweep([SHM_FOLDER, tmp_path]))
    assert not (SHM_FOLDER / shm).exists()
    assert not Path(file).exists()


def test_sweep_leaves_living_blocks_and_foreign_files(tmp_path: Path) -> None:
    slabs = [Slab.create(SIZE), Slab.create_file(SIZE, tmp_path)]
    (tmp_path / "mos-is-not-ours").write_bytes(b"x")
    (tmp_path / "another").write_bytes(b"x")
    assert sweep([tmp_path, tmp_path / "nowhere"]) == []
    assert slabs[0].name not in sweep()  # others' leftovers may be there to be swept
    for slab in slabs:
        assert attach(slab.name).size == SIZE
        slab.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["another", "mos-is-not-ours"]


def test_sweep_removes_a_leftover_whose_process_id_was_given_out_again(tmp_path: Path) -> None:
    (tmp_path / f"mos-{os.getpid()}-1-abcd").write_bytes(b"x")
    assert sweep([tmp_path]) == [f"mos-{os.getpid()}-1-abcd"]


def test_sweep_leaves_a_block_whose_owner_lives_in_another_pid_namespace(tmp_path: Path) -> None:
    slab = Slab.create_file(SIZE, tmp_path)
    unseen = tmp_path / "mos-4194305-1-abcd"  # no kernel gives out this process id
    Path(slab.name).rename(unseen)
    assert sweep([tmp_path]) == []
    slab.close()
    assert sweep([tmp_path]) == [unseen.name]


def test_many_blocks_cost_one_descriptor_each() -> None:
    Slab.create(SIZE).close()  # the resource tracker's own descriptor may come with the first block
    before = open_descriptors()
    slabs = [Slab.create(SIZE) for _ in range(10)]
    assert open_descriptors() <= before + 10
    for slab in slabs:
        slab.data[:] = np.uint8(1)
        slab.close()


def test_sweep_removes_semaphores_of_dead_owners_in_its_own_namespace() -> None:
    mine = semaphore_prefix()
    _, namespace = mine.rsplit("-", 1)
    names = [f"sem.mos-{2**22 + 1}-1-{namespace}-dead", f"sem.mos-{2**22 + 1}-1-1-foreign", f"sem.{mine}-living"]
    paths = [SHM_FOLDER / name for name in names]
    for path in paths:
        path.touch()
    try:
        assert names[0] in sweep()
        assert [path.exists() for path in paths] == [False, True, True]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_channels_semaphores_tell_their_owner(renamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if renamed:  # as joblib does in the processes that import it
        monkeypatch.setattr(SemLock, "_make_name", staticmethod(lambda: f"/other-{os.getpid()}-{time.monotonic_ns()}"))
    named = SemLock._make_name  # type: ignore[attr-defined]
    channel = Channel()
    try:
        assert len(list(SHM_FOLDER.glob(f"sem.{semaphore_prefix()}-*"))) == 3  # two locks and the queue's room
    finally:
        channel.close()
    assert not list(SHM_FOLDER.glob(f"sem.{semaphore_prefix()}-*"))
    assert SemLock._make_name is named  # type: ignore[attr-defined]
