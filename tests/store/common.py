"""What the store's tests share."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mos_pipeline
from mos_pipeline.config import Store
from mos_pipeline.messages import encode
from mos_pipeline.store.codec import pack_pages
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.heads import heads_of
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.scanning import Read

CONFIG = Store(journal_bytes=65536, segment_bytes=65536, lock_timeout_s=0.2)
REPO = Path(mos_pipeline.__file__).parents[1]


@pytest.fixture(autouse=True)
def descriptors_closed() -> Iterator[None]:
    before = _open_files()
    yield
    if _open_files() != before:  # only then: with a model's libraries loaded a collection takes a fifth of a second
        gc.collect()
    assert _open_files() == before


def _open_files() -> list[str]:
    """What is open, by name: the descriptor that lists the folder is left out."""
    links = list(Path("/proc/self/fd").iterdir())
    return sorted(str(link.readlink()) for link in links if link.is_symlink())


def record(seq: int, text: str = "hello") -> bytes:
    return encode(["user", "assistant", f"{text} {seq}", "", "", None, None, None])


def pages(first_seq: int, count: int, text: str = "hello") -> bytes:
    return packed(first_seq, [record(seq, text) for seq in range(first_seq, first_seq + count)])


def packed(first_seq: int, records: list[bytes]) -> bytes:
    """The body of a frame of pages, as the writer makes it."""
    return pack_pages(first_seq, heads_of(records), records)


def made_folder(root: Path) -> StoreFolder:
    folder = StoreFolder(root)
    folder.create()
    Manifest.new().save(folder)
    return folder


def from_bytes(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def flip(path: Path, offset: int, mask: int = 0xFF) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a child with its output piped; the caller waits for it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )


class SmallDisk:
    """Lets os.pwrite write so many more bytes, then fails as a full disk does: after part of the data."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: float = float("inf")
        self.error = errno.ENOSPC
        self._real = os.pwrite
        monkeypatch.setattr(os, "pwrite", self._pwrite)

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        if self.free <= 0:
            raise OSError(self.error, os.strerror(self.error))
        part = data[: int(min(self.free, len(data)))]
        self.free -= len(part)
        return self._real(descriptor, part, offset)


class Snapshots:
    """Copies a folder after every system call that changes it: what a crash at that moment would leave."""

    CALLS = ("open", "pwrite", "fsync", "fdatasync", "ftruncate", "replace", "rename", "unlink", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: Path, target: Path) -> None:
        self.taken: list[tuple[Path, str, Any]] = []
        self.state: Callable[[], Any] = lambda: None
        self._source, self._target, self._busy = source, target, False
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            self.take(name)
            return result

        return call

    def take(self, name: str) -> None:
        if self._busy or not self._source.exists():
            return
        self._busy = True
        copy = self._target / f"{len(self.taken):04d}-{name}"
        shutil.copytree(self._source, copy)
        self.taken.append((copy, name, self.state()))
        self._busy = False
