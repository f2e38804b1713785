from __future__ import annotations

import errno
import gzip
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from mos_pipeline.errors import DeadlineError, InputError
from mos_pipeline.ingest.streams import Stream, files_below
from tests.ingest.common import items, page, records, said, written

LINES = b"".join(
    b'{"user_id": "u", "user_input": "%d %d", "agent_response": ""}\n' % (n, n * 7919) for n in range(9000)
)
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}


@pytest.fixture(params=PACKERS)
def pack(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return PACKERS[request.param]


def read(path: Path) -> bytes:
    with Stream(path).opened() as file:
        return b"".join(iter(lambda: file.read(50_000), b""))


def test_compressed_files_read_as_what_they_hold_whatever_their_name(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    for name in ("pages.jsonl", "pages.jsonl.gz", "pages.zst"):
        path = written(tmp_path, pack(LINES), name)
        assert read(path) == LINES
        assert not Stream(path).plain
    assert len(records(path)) == 9000
    assert said(records(written(tmp_path, [page(3)], "pages.gz"))) == [("question 3", "answer 3")]  # plain, in truth


def test_frames_one_after_the_other_and_padding_are_one_file(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    middle = len(LINES) // 2
    packed = pack(LINES[:middle]) + pack(b"") + pack(LINES[middle:])
    assert read(written(tmp_path, packed)) == LINES
    assert read(written(tmp_path, gzip.compress(LINES) + bytes(700))) == LINES


def test_what_is_cut_off_is_told_with_its_offset_and_what_comes_before_is_read(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(random.Random(1).randbytes(400_000).hex().encode())
    whole = pack(LINES)
    for content in (whole[: len(whole) // 2], whole[:-1], packed[: len(packed) // 2]):
        path = written(tmp_path, content)
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: the compressed data ends too early")
        assert f"at byte {len(content):,};" in str(caught.value)
    path = written(tmp_path, whole[: len(whole) // 2])
    found = []
    with pytest.raises(InputError), Stream(path).opened() as file:
        while chunk := file.read1(1000):  # type: ignore[attr-defined]
            found.append(chunk)
    assert LINES.startswith(b"".join(found))


def test_all_lines_before_the_damage_are_read(tmp_path: Path) -> None:
    blocks = [LINES[at : at + 40_000] for at in range(0, len(LINES), 40_000)]
    packed = list(map(gzip.compress, blocks))
    damaged = bytearray(packed[5])
    damaged[len(damaged) // 2] ^= 0xFF
    damaged[-5] ^= 0xFF
    path = written(tmp_path, b"".join([*packed[:5], bytes(damaged)]))
    found = []
    from mos_pipeline.ingest import read_source

    with pytest.raises(InputError, match=r"the compressed data is damaged \(.*\) at byte [\d,]+;"):
        for record in read_source(path):
            found.append(record)  # noqa: PERF402 - it ends with an error
    assert len(found) >= b"".join(blocks[:5]).count(b"\n") - 1


def test_garbage_behind_a_frame_is_told(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InputError, match="damaged"):
        read(written(tmp_path, pack(LINES) + b"garbage that is no frame"))


def test_a_bomb_is_unpacked_in_bounded_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path, pack(bytes(200 << 20)))
    tracemalloc.start()
    try:
        with Stream(path).opened() as file:
            assert sum(map(len, iter(lambda: file.read(1 << 20), b""))) == 200 << 20
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()


def test_only_what_goes_wrong_with_the_file_is_told_as_that(tmp_path: Path) -> None:
    stream = Stream(written(tmp_path, LINES))
    for error in (DeadlineError("of whoever reads"), InputError("too")):
        with pytest.raises(type(error)) as caught, stream.opened():
            raise error
        assert caught.value is error
    with pytest.raises(InputError, match=r"can't be read \(Input/output error\)"), stream.opened():
        raise OSError(errno.EIO, "Input/output error")


def test_a_folder_is_its_files_sorted_without_hidden_ones_and_links_to_folders(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl", "a/.hidden", ".git/c.jsonl", "a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "around").symlink_to(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "b.jsonl")
    found = [str(path.relative_to(tmp_path)) for path in files_below(tmp_path)]
    assert found == ["a/z.jsonl", "a.jsonl", "b.jsonl", "link.jsonl"]


def test_an_empty_compressed_file_has_no_pages(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    assert items(written(tmp_path, pack(b""))) == []
