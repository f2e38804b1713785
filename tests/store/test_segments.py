from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from mos_pipeline.errors import ConfigError, InputError, StoreDamagedError, StoreError, StoreFullError
from mos_pipeline.store import segments
from mos_pipeline.store.codec import HEADER_BYTES, FrameKind, encode_frame
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.segments import FrameAddress, SegmentReader
from tests.store.common import SmallDisk, flip, made_folder, run_python


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return made_folder(tmp_path / "store")


def noise(length: int = 1000) -> bytes:
    return os.urandom(length)


def all_bodies(folder: StoreFolder) -> list[bytes]:
    """Every frame of every segment; anything else in them fails the test."""
    reader = SegmentReader(folder)
    found: list[bytes] = []
    for number in Manifest.load(folder).segments:
        for item in reader.scan(number):
            assert isinstance(item, Frame)
            found.append(item.body)
    reader.close()
    return found


def fail_with(code: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_frames_are_read_back_by_address(folder: StoreFolder) -> None:
    writer = SegmentWriter(folder, 1 << 20, 3)
    bodies = [noise(10), b"", b"text " * 20_000, noise(40_000)]
    addresses = [writer.append(FrameKind.VECTORS, body) for body in bodies]
    reader = SegmentReader(folder)
    assert [reader.read_frame(address) for address in reversed(addresses)] == [
        (FrameKind.VECTORS, body) for body in reversed(bodies)
    ]
    assert addresses == sorted(addresses)
    reader.close()
    writer.close()
    assert all_bodies(folder) == bodies


def test_new_segment_is_begun_at_the_limit_and_named_in_the_manifest(folder: StoreFolder) -> None:
    writer = SegmentWriter(folder, 3000, 3)
    bodies = [noise() for _ in range(7)]
    addresses = [writer.append(FrameKind.BATCH, body) for body in bodies]
    assert [address.segment for address in addresses] == [1, 1, 2, 2, 3, 3, 4]
    assert Manifest.load(folder).segments == (1, 2, 3, 4)
    assert writer.durable == FrameAddress(4, 0)
    writer.sync()
    assert writer.durable == FrameAddress(4, 1000 + HEADER_BYTES)
    writer.close()
    for number in range(1, 5):
        status = folder.segment(number).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size <= 3000
    assert all_bodies(folder) == bodies


def test_frame_longer_than_a_segment_has_one_of_its_own(folder: StoreFolder) -> None:
    writer = SegmentWriter(folder, 3000, 3)
    bodies = [noise(5000), noise(5000), noise(10)]
    assert [writer.append(FrameKind.BATCH, body) for body in bodies] == [(1, 0), (2, 0), (3, 0)]
    writer.close()
    assert all_bodies(folder) == bodies


def test_reopened_writer_goes_on_where_the_last_one_stopped(folder: StoreFolder) -> None:
    bodies = []
    for _ in range(3):
        writer = SegmentWriter(folder, 1 << 20, 3)
        bodies.append(noise())
        address = writer.append(FrameKind.BATCH, bodies[-1])
        writer.close()
    assert address == (1, 2 * (1000 + HEADER_BYTES))
    assert all_bodies(folder) == bodies


@pytest.mark.parametrize("length", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, 500, 1000 + HEADER_BYTES - 1])
def test_torn_tail_is_cut_and_kept(folder: StoreFolder, length: int, caplog: pytest.LogCaptureFixture) -> None:
    writer = SegmentWriter(folder, 1 << 20, 3)
    bodies = [noise()]
    writer.append(FrameKind.BATCH, bodies[0])
    writer.close()
    torn = encode_frame(FrameKind.BATCH, noise(), 3)[:length]
    with folder.segment(1).open("ab") as file:
        file.write(torn)
    writer = SegmentWriter(folder, 1 << 20, 3)
    assert f"a torn tail of {length} bytes is cut off" in caplog.text
    assert [path.read_bytes() for path in folder.aside.iterdir()] == [torn]
    bodies.append(noise())
    writer.append(FrameKind.BATCH, bodies[1])
    writer.close()
    assert all_bodies(folder) == bodies


def test_damaged_frame_is_not_taken_for_a_torn_tail(folder: StoreFolder) -> None:
    writer = SegmentWriter(folder, 1 << 20, 3)
    writer.append(FrameKind.BATCH, noise())
    writer.close()
    flip(folder.segment(1), 500)
    SegmentWriter(folder, 1 << 20, 3).close()
    assert folder.segment(1).stat().st_size == 1000 + HEADER_BYTES


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("room", [0, 1, HEADER_BYTES, 700])
def test_failed_write_leaves_nothing_and_the_next_may_succeed(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch, code: int, room: int
) -> None:
    disk = SmallDisk(monkeypatch)
    disk.error = code
    writer = SegmentWriter(folder, 1 << 20, 3)
    bodies = [noise(), noise()]
    writer.append(FrameKind.BATCH, bodies[0])
    disk.free = room
    with pytest.raises(StoreFullError if code == errno.ENOSPC else StoreError, match="a frame could not be written"):
        writer.append(FrameKind.BATCH, noise())
    assert folder.segment(1).stat().st_size == 1000 + HEADER_BYTES
    disk.free = float("inf")
    writer.append(FrameKind.BATCH, bodies[1])
    writer.close()
    assert all_bodies(folder) == bodies


def test_what_could_not_be_cut_is_cut_before_the_next_frame(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SmallDisk(monkeypatch)
    writer = SegmentWriter(folder, 1 << 20, 3)
    writer.append(FrameKind.BATCH, b"first")
    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", fail_with(errno.EIO))
        disk.free = 900
        with pytest.raises(StoreFullError):
            writer.append(FrameKind.BATCH, noise())
        disk.free = float("inf")
        with pytest.raises(StoreError, match="is not cut off"):
            writer.append(FrameKind.BATCH, b"second")
    writer.append(FrameKind.BATCH, b"third")
    writer.close()
    assert all_bodies(folder) == [b"first", b"third"]


def test_failed_fsync_takes_back_what_was_not_durable(folder: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(folder, 1 << 20, 3)
    writer.append(FrameKind.BATCH, b"durable")
    writer.sync()
    durable = writer.durable
    lost = writer.append(FrameKind.BATCH, b"lost")
    with monkeypatch.context() as broken, pytest.raises(StoreError, match="could not be made durable"):
        broken.setattr(os, "fdatasync", fail_with(errno.EIO))
        writer.sync()
    assert writer.durable == durable == lost
    assert all_bodies(folder) == [b"durable"]
    assert writer.append(FrameKind.BATCH, b"again") == lost
    writer.close()
    assert all_bodies(folder) == [b"durable", b"again"]


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "replace", "open", "pwrite"])
def test_rotation_that_fails_anywhere_can_be_tried_again(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    writer = SegmentWriter(folder, 3000, 3)
    bodies = [noise(), noise(), noise()]
    for body in bodies[:2]:
        writer.append(FrameKind.BATCH, body)
    if call != "fdatasync":  # where that fails, frames are taken back: tested above
        writer.sync()
    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail_with(errno.ENOSPC))
        for _ in range(2):
            with pytest.raises(StoreFullError):
                writer.append(FrameKind.BATCH, noise(2000))
            if call == "fdatasync":
                break
    kept = [] if call == "fdatasync" else bodies[:2]
    assert all_bodies(folder) == kept
    writer.append(FrameKind.BATCH, bodies[2])
    writer.close()
    assert all_bodies(folder) == [*kept, bodies[2]]


def test_rotation_makes_everything_durable_in_order(folder: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(folder, 3000, 3)
    writer.append(FrameKind.BATCH, noise())
    calls: list[str] = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            where = arguments[0] if isinstance(arguments[0], int) else None
            calls.append(f"{name} {Path(f'/proc/self/fd/{where}').readlink().name}" if where is not None else name)
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("fdatasync", "fsync", "pwrite", "replace"):
        spy(name)
    writer.append(FrameKind.BATCH, noise(2500))
    writer.close()
    assert calls == [
        "fdatasync 00000001.segment",
        "fsync 00000002.segment",
        "fsync segments",
        "pwrite MANIFEST.new",
        "fsync MANIFEST.new",
        "replace",
        "fsync store",
        "pwrite 00000002.segment",
        "fdatasync 00000002.segment",
    ]


WRITE_UNTIL_FULL = """
import os, resource, sys
from pathlib import Path
from mos_pipeline.errors import StoreFullError
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.segment_writer import SegmentWriter
writer = SegmentWriter(StoreFolder(Path(sys.argv[1])), 1 << 20, 3)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        writer.append(FrameKind.BATCH, os.urandom(900))
        written += 1
except StoreFullError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append(FrameKind.BATCH, b"after")
writer.close()
print(written)
"""


def test_real_limit_of_the_file_size(folder: StoreFolder) -> None:
    child = run_python(WRITE_UNTIL_FULL, folder.root)
    output, _ = child.communicate()
    assert output == "10\n"
    found = all_bodies(folder)
    assert [len(body) for body in found] == [900] * 10 + [5]
    assert found[-1] == b"after"


def test_something_unknown_in_place_of_the_next_segment_is_left_alone(folder: StoreFolder) -> None:
    folder.segment(1).write_bytes(b"precious")
    writer = SegmentWriter(folder, 3000, 3)
    with pytest.raises(StoreError, match="does not name"):
        writer.append(FrameKind.BATCH, b"body")
    writer.close()
    assert folder.segment(1).read_bytes() == b"precious"
    assert Manifest.load(folder).segments == ()


def test_identity_is_saved_and_survives_rotation(folder: StoreFolder) -> None:
    writer = SegmentWriter(folder, 1500, 3)
    writer.set_embedding({"model": "m", "dimension": 384})
    for _ in range(3):
        writer.append(FrameKind.BATCH, noise())
    writer.close()
    manifest = Manifest.load(folder)
    assert (manifest.embedding, manifest.segments) == ({"model": "m", "dimension": 384}, (1, 2, 3))


def test_refusals(folder: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        SegmentWriter(folder, 3000, 99)
    writer = SegmentWriter(folder, 3000, 3)
    monkeypatch.setattr("mos_pipeline.store.codec.MAX_BODY", 5)
    with pytest.raises(InputError):
        writer.append(FrameKind.BATCH, b"too long")
    writer.close()
    assert all_bodies(folder) == []


def test_reader_names_segment_and_offset_of_damage(folder: StoreFolder) -> None:
    writer = SegmentWriter(folder, 1 << 20, 3)
    address = writer.append(FrameKind.BATCH, noise())
    writer.close()
    reader = SegmentReader(folder)
    with pytest.raises(
        StoreDamagedError, match=r"00000001\.segment: damaged at offset 7: there is no valid frame header"
    ):
        reader.read_frame(FrameAddress(1, 7))
    with pytest.raises(StoreDamagedError, match="at offset 5000"):
        reader.read_frame(FrameAddress(1, 5000))
    flip(folder.segment(1), 500)
    with pytest.raises(StoreDamagedError, match="at offset 0: the body's checksum"):
        reader.read_frame(address)
    with pytest.raises(StoreError, match=r"00000009\.segment: the segment could not be opened"):
        reader.read_frame(FrameAddress(9, 0))
    reader.close()


def test_reader_keeps_few_files_and_threads_do_not_disturb_each_other(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "OPEN_FILES", 2)
    writer = SegmentWriter(folder, 1100, 3)
    bodies = {writer.append(FrameKind.BATCH, body): body for body in (noise() for _ in range(6))}
    writer.close()
    reader = SegmentReader(folder)
    wrong: list[FrameAddress] = []

    def read_all() -> None:
        for _ in range(30):
            wrong.extend(address for address, body in bodies.items() if reader.read_frame(address)[1] != body)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert sum(link.suffix == ".segment" for link in links) == 2
    reader.close()
