from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from mos_pipeline.errors import StoreDamagedError, StoreError, StoreFullError
from mos_pipeline.store import folder as folder_module
from mos_pipeline.store.folder import (
    Damage,
    StoreFolder,
    disk_errors,
    fsync_ancestors,
    keep_aside,
    move_aside,
    numbered,
    open_private,
    write_all,
)
from mos_pipeline.store.manifest import Manifest


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    made = StoreFolder(tmp_path / "a" / "store")
    made.create()
    return made


def test_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = StoreFolder(tmp_path / "store")
        folder.create()
        os.close(open_private(folder.lock, os.O_RDWR | os.O_CREAT))
    finally:
        os.umask(before)
    for path in (folder.root, folder.journals, folder.segments, folder.aside):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.lock.stat().st_mode) == 0o600


def test_creating_again_changes_nothing(folder: StoreFolder) -> None:
    folder.root.chmod(0o750)
    folder.create()
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o750


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError, match="could not be made"):
        StoreFolder(tmp_path / "store").create()


def test_symbolic_link_is_not_written_through(folder: StoreFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder.lock.symlink_to(victim)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_private(folder.lock, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    assert victim.read_text() == "precious"


def test_a_named_pipe_keeps_nobody_waiting(folder: StoreFolder) -> None:
    os.mkfifo(folder.lock)
    os.close(open_private(folder.lock, os.O_RDONLY))
    os.mkfifo(folder.manifest)
    with pytest.raises(StoreDamagedError, match="a named pipe"):
        Manifest.load(folder)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_has_an_error_of_its_own_with_path_and_mend(code: int) -> None:
    with (
        pytest.raises(StoreFullError, match=r"/a/b: it broke, .*free disk space"),
        disk_errors(Path("/a/b"), "it broke"),
    ):
        raise OSError(code, os.strerror(code))


def test_other_disk_errors_are_store_errors() -> None:
    with pytest.raises(StoreError, match="/a/b: it broke") as caught, disk_errors(Path("/a/b"), "it broke"):
        raise OSError(errno.EIO, "Input/output error")
    assert not isinstance(caught.value, StoreFullError)


def test_write_all_goes_on_after_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    descriptor = open_private(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    write_all(descriptor, b"0123456789", 2)
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"\0\x000123456789"


def test_only_numbered_files_are_listed_in_the_order_of_their_numbers(folder: StoreFolder) -> None:
    for name in ("00000010.segment", "9.segment", "x.segment", "00000001.journal", ".segment", "²2.segment"):
        (folder.segments / name).touch()
    assert [number for number, _ in numbered(folder.segments, ".segment")] == [9, 10]


def test_the_same_damaged_bytes_are_kept_once_and_others_beside_them(folder: StoreFolder) -> None:
    path = folder.segment(1)
    path.write_bytes(b"0123456789")
    kept = [keep_aside(folder, Damage(path, 2, 3, "bad")) for _ in range(2)]
    assert kept[0] == kept[1]
    assert kept[0].read_bytes() == b"234"
    assert stat.S_IMODE(kept[0].stat().st_mode) == 0o600
    path.write_bytes(b"abcdefghij")
    assert keep_aside(folder, Damage(path, 2, 3, "bad")).read_bytes() == b"cde"
    assert sorted(copy.read_bytes() for copy in folder.aside.iterdir()) == [b"234", b"cde"]


def test_damage_longer_than_a_copy_step_is_kept_whole(folder: StoreFolder) -> None:
    data = os.urandom(2_500_000)
    folder.segment(1).write_bytes(data)
    kept = keep_aside(folder, Damage(folder.segment(1), 7, len(data) - 7, "bad"))
    assert kept.read_bytes() == data[7:]


def test_whole_files_moved_aside_do_not_replace_each_other(folder: StoreFolder) -> None:
    for text in ("one", "two"):
        folder.segment(1).write_text(text)
        move_aside(folder, folder.segment(1))
    assert sorted(path.read_text() for path in folder.aside.iterdir()) == ["one", "two"]
    assert not folder.segment(1).exists()


def test_names_of_all_folders_above_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[Path]()
    monkeypatch.setattr(folder_module, "fsync_folder", synced.append)
    fsync_ancestors(tmp_path / "a" / "b")
    assert synced == [tmp_path / "a", tmp_path, *tmp_path.parents]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EINVAL, errno.EIO])
def test_folders_above_that_can_not_be_flushed_are_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(path: Path) -> None:
        if path != tmp_path:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folder_module, "fsync_folder", fsync)
    with pytest.raises(OSError, match="Input/output") if code == errno.EIO else nullcontext():
        fsync_ancestors(tmp_path / "store")
