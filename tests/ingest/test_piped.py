"""Stdin: what is piped into it is read as it comes, and as a file with the same content would be."""

from __future__ import annotations

import gzip
import io
import json
import os
import select
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import InputError, RecordError
from mos_pipeline.ingest import Reading, SourceFile, Stream, resumed
from mos_pipeline.ingest.piped import from_stdin
from tests.ingest.common import page, written

Told = list[tuple[Any, ...]]


class WouldWaitError(Exception):
    """Whoever reads would have to wait."""


@contextmanager
def piped(chunks: Iterable[bytes], folder: Path, *, ends: bool = True) -> Iterator[Stream]:
    """A pipe into which the next chunk comes when whoever reads waits for it."""
    read_end, write_end = os.pipe()
    coming, open_ends = iter(chunks), {read_end, write_end}

    def wait(descriptor: int) -> None:
        if select.select([descriptor], [], [], 0)[0]:
            return
        chunk = next(coming, b"")
        if chunk:
            assert os.write(write_end, chunk) == len(chunk)
        elif ends:
            os.close(write_end)
            open_ends.remove(write_end)
        else:
            raise WouldWaitError

    try:
        with os.fdopen(os.dup(read_end), "rb") as stdin, from_stdin(stdin, folder, wait) as stream:
            yield stream
    finally:
        for descriptor in open_ends:
            os.close(descriptor)


def no_wait(_: int) -> None:
    pytest.fail("it waits")


def told(items: Iterable[Any]) -> Told:
    """What a source's records and errors say, without the source's name."""
    found: Told = []
    try:
        for item in items:
            if isinstance(item, RecordError):
                found.append((item.place, item.reason, item.raw, item.format))
            else:
                found.append((*item[:9], item.spot.place, *item[10:]))
    except InputError as error:
        found.append((str(error).partition(":")[2],))
    return found


def read(stream: Stream, known: dict[bytes, int] | None = None) -> tuple[Any, ...]:
    """Everything that a source is, and what is taken of it."""
    try:
        source = SourceFile.of(stream)
    except InputError as error:
        return (str(error).partition(":")[2],)
    found = resumed(source, Reading(user="u"), known or {})
    marks = list[Any]()

    def items() -> Iterator[Any]:
        for taken in found.taken:
            marks.append(taken.mark)
            yield taken.item

    said = told(items())
    return source[1:], found.start, found.changed, said, marks


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut ``data`` into pieces of ``sizes``, and these again."""
    place = 0
    while sizes and place < len(data):
        for size in sizes:
            if place < len(data):
                yield data[place : place + size]
                place += size


def lines(*objects: Any) -> bytes:
    return b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in objects)


TALK = {"id": "t", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}] * 3}
EXPORT = [{"uuid": f"k{n}", "chat_messages": [{"sender": "human", "text": "How?"}] * n} for n in range(4)]
SOURCES = {
    "nothing": b"",
    "blank": b"\n \n",
    "lines": lines(*map(page, range(9))),
    "no end": lines(*map(page, range(3)))[:-1],
    "marked": b"\xef\xbb\xbf\n" + lines(*map(page, range(3))),
    "wrong lines": lines(page(0), b"{torn\n", page(1), b"\n", [1], page(2, user_input=3), b"\xff\n", page(3)),
    "a wrong first line": lines(b'{"user_input": "he\n', *map(page, range(3))),
    "conversations": lines(TALK, TALK, {"messages": 3}, TALK),
    "one conversation": json.dumps(TALK, indent=1).encode(),
    "an export": json.dumps(EXPORT, indent=1).encode(),
    "an export, cut off": json.dumps(EXPORT).encode()[:-9],
    "memories": json.dumps({"results": [{"id": "7", "memory": "Tea.", "user_id": "ann"}] * 3}).encode(),
    "quarantine": lines({"reason": "r", "source": "s", "format": "jsonl", "raw": page(1)}),
    "compressed": gzip.compress(lines(*map(page, range(9)))),
    "compressed, cut off": gzip.compress(lines(*map(page, range(9))))[:-9],
    "garbage": b"hello\n",
    "a list": b"[1, 2]\n",
}
SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=5)


@pytest.mark.parametrize("kind", SOURCES)
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES)
def test_a_pipe_is_read_as_a_file(tmp_path_factory: pytest.TempPathFactory, kind: str, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("f")
    with piped(cut(SOURCES[kind], sizes), folder) as stream:
        assert read(stream) == read(Stream(written(folder, SOURCES[kind])))


@pytest.mark.parametrize(
    "kind", ["lines", "no end", "marked", "wrong lines", "conversations", "compressed", "memories"]
)
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, taken=st.integers(0, 9), other=st.booleans())
def test_piped_again_from_its_beginning_it_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, kind: str, sizes: list[int], taken: int, other: bool
) -> None:
    """Or read anew, where it has become another one."""
    folder = tmp_path_factory.mktemp("f")
    marks = [mark for mark in read(Stream(written(folder, SOURCES[kind])))[-1] if mark is not None][:taken]
    known = {marks[-1].digest: marks[-1].ordinal + 1 + 3 * other} if marks else {}
    expected = read(Stream(written(folder, SOURCES[kind])), known)
    with piped(cut(SOURCES[kind], sizes), folder) as stream:
        found = read(stream, known)
    assert found == expected
    assert found[2] == (bool(marks) and other)


FOLLOWED: dict[str, tuple[list[bytes], Callable[[int], int]]] = {
    "lines": ([lines(page(number)) for number in range(5)], lambda count: count),
    "conversations": ([lines(TALK)] * 5, lambda count: 3 * count),
    "wrong lines": ([lines(page(0)), *[b"{torn}\n"] * 4], lambda count: count),
    # What the source is called is told by its first record.
    "a wrong first line": ([b'{"user_input": "he\n', *[lines(page(0))] * 4], lambda count: count * (count > 1)),
}


@pytest.mark.parametrize("kind", FOLLOWED)
def test_each_line_is_taken_as_it_comes(tmp_path: Path, kind: str) -> None:
    chunks, expected = FOLLOWED[kind]
    for count in range(1, len(chunks) + 1):
        with piped([*chunks[:count], b'{"half'], tmp_path, ends=False) as stream:
            source, found, hand = SourceFile.of(stream), list[Any](), False
            with pytest.raises(WouldWaitError):
                for taken in resumed(source, Reading(user="u"), {}).taken:
                    found.append(taken.item)
                    hand = stream.at_hand()
            assert len(found) == expected(count)
            assert not hand, "behind the last line there is nothing to be read without waiting"


def test_lines_that_are_there_are_at_hand(tmp_path: Path) -> None:
    with piped([lines(*map(page, range(50)))], tmp_path) as stream:
        taken = resumed(SourceFile.of(stream), Reading(), {}).taken
        assert [stream.at_hand() for _ in taken] == [True] * 49 + [False]


def test_what_was_passed_over_counts_as_lines(tmp_path: Path) -> None:
    data = lines(*map(page, range(9)), b"{torn\n", page(9), b"{torn\n", *map(page, range(10, 3000)))
    path = written(tmp_path, data)
    marks = read(Stream(path))[-1]
    known = {marks[5].digest: marks[5].ordinal + 1}
    expected = read(Stream(path), known)
    assert expected[1] > 0
    assert [one[0] for one in expected[3] if len(one) == 4] == ["line 10", "line 12"]
    with piped(cut(data, [100]), tmp_path) as stream:
        assert read(stream, known) == expected
    with path.open("rb") as stdin, from_stdin(stdin, tmp_path, no_wait) as stream:
        assert read(stream, known) == expected


def test_nothing_is_kept_of_a_stream_that_never_ends(tmp_path: Path) -> None:
    line = lines(page(0, metadata={"long": "x" * 50_000}))
    kept = list[int]()

    def endless() -> Iterator[bytes]:
        for number in range(6000):
            if number % 1000 == 0:
                kept.append(sum(os.fstat(int(fd.name)).st_blocks for fd in spools(tmp_path)))
            yield line

    tracemalloc.start()
    try:
        with piped(endless(), tmp_path) as stream:
            assert len(spools(tmp_path)) == 1
            count = sum(1 for _ in resumed(SourceFile.of(stream), Reading(), {}).taken)
            assert not spools(tmp_path), "what was kept is not let go"
        assert count == 6000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert max(kept) * 512 < 1 << 20


def spools(folder: Path) -> list[Path]:
    """The descriptors of this process that are files without a name in ``folder``."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)  # noqa: PTH115 - it is no path that leads anywhere
        except OSError:
            continue
        if target.startswith(str(folder)) and target.endswith("(deleted)"):
            found.append(descriptor)
    return found


def test_a_file_that_is_directed_there_is_read_in_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, map(page, range(9)))
    with path.open("rb") as stdin, from_stdin(stdin, tmp_path, no_wait) as stream:
        assert not stream.once
        assert not spools(tmp_path)
        assert read(stream) == read(Stream(path))
    with from_stdin(io.BytesIO(path.read_bytes()), tmp_path, no_wait) as stream:
        assert stream.name == "stdin"
        assert len(read(stream)[-1]) == 9


def test_of_a_file_that_was_read_into_already_the_rest_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, map(page, range(9)))
    with path.open("rb", 0) as stdin:
        stdin.readline()
        with from_stdin(stdin, tmp_path, lambda _: None) as stream:
            assert len(read(stream)[-1]) == 8


def test_what_is_in_the_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with piped([lines(page(0))], tmp_path) as stream:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(InputError, match=f"could not be copied to {tmp_path} .No space left on device."):
            SourceFile.of(stream)


def test_a_pipe_is_read_once_when_it_is_decided(tmp_path: Path) -> None:
    with piped(cut(lines(*map(page, range(200))), [1000]), tmp_path) as stream:
        source = SourceFile.of(stream)
        assert len(list(resumed(source, Reading(), {}).taken)) == 200
        with pytest.raises(RuntimeError, match="read again"):
            list(source.items(Reading()))
