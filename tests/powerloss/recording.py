"""Records all that a store does to its files: in the order of the calls, from every thread of this process.

The calls are those of ``os`` (``pathlib``'s go through them), and assignments to a mapping of a journal, which is
``mmap.mmap`` itself with its ``__setitem__`` overridden: no write can slip by. What a call does and its note are one
step, under a lock, so that the order of the notes is that of the deeds.
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mos_pipeline.store import journal
from tests.powerloss.disk import Disk, Link, Made, Name, Operation, Resized, Synced, Written

__all__ = ["Mark", "Recorder"]


class Mark(tuple[str, tuple[str, ...]]):
    """What a caller knows at this point: ``(what, pages)``."""

    __slots__ = ()


class Recorder:
    """Notes what happens to files below ``top``.

    Attributes:
        log: operations and marks, in their order.
        base: the disk as it was before the first of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, top: Path, base: Disk | None = None) -> None:
        """Record from now on; ``top`` holds what ``base`` does once all of it is on the disk (nothing, for None)."""
        self.log: list[Operation | Mark] = []
        self.base = base or Disk()
        self.working = True
        self._top = top
        self._lock = threading.RLock()
        self._numbers = itertools.count(self.base.next_node)
        self._by_path = {str(top / path): node for path, node in self.base.nodes()} | {str(top): 0}
        self._by_inode = {_inode(path): node for path, node in self._by_path.items()}
        for name in ("open", "pwrite", "ftruncate", "posix_fallocate", "fsync", "fdatasync", "mkdir", "unlink"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name), getattr(self, f"_{name}")))
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name), self._renamed))
        monkeypatch.setattr(journal, "mmap", SimpleNamespace(mmap=self._mapping(), ACCESS_READ=mmap.ACCESS_READ))

    def mark(self, what: str, *pages: str) -> None:
        """Note what a caller knows from now on."""
        with self._lock:
            self.log.append(Mark((what, pages)))

    def after(self) -> Disk:
        """Return the disk after all that was recorded."""
        disk = self.base.copy()
        for entry in self.log:
            if not isinstance(entry, Mark):
                disk.apply(entry)
        return disk

    def _note(self, operation: Operation) -> None:
        self.log.append(operation)

    def _wrapped(self, real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                existed = self.working and note == self._open and os.path.exists(arguments[0])  # noqa: PTH110
                result = real(*arguments, **options)
                if self.working:
                    note(result, existed, *arguments)
            return result

        return call

    def _mapping(self) -> type[mmap.mmap]:
        recorder = self

        class Mapping(mmap.mmap):
            """A mapping of a journal that may be written."""

            node: int | None

            def __new__(cls, descriptor: int, length: int, **options: Any) -> Mapping:
                self = super().__new__(cls, descriptor, length, **options)
                self.node = recorder._node(descriptor)
                return self

            def __setitem__(self, place: Any, data: Any) -> None:
                with recorder._lock:
                    before = self[place]
                    super().__setitem__(place, data)
                    if recorder.working and self.node is not None and before != data:
                        recorder._note(Written(self.node, place.start, bytes(data)))

        return Mapping

    def _node(self, descriptor: int) -> int | None:
        return self._by_inode.get(_inode(descriptor))

    def _name(self, path: Any) -> Name | None:
        folder, _, name = os.fspath(path).rpartition("/")
        return Name(self._by_path[folder], name) if folder in self._by_path else None

    def _make(self, path: Any, *, is_folder: bool) -> None:
        name, node = self._name(path), next(self._numbers)
        if name is not None:
            self._note(Made(node, is_folder))
            self._note(Link(((name, node),)))
            self._by_path[os.fspath(path)] = node
            self._by_inode[_inode(path)] = node

    def _open(self, _result: int, existed: bool, path: Any, flags: int, *_: Any) -> None:
        if flags & os.O_CREAT and not existed:
            self._make(path, is_folder=False)
        elif flags & os.O_TRUNC and os.fspath(path) in self._by_path:
            self._note(Resized(self._by_path[os.fspath(path)], 0))

    def _mkdir(self, _result: None, _existed: bool, path: Any, *_: Any) -> None:
        self._make(path, is_folder=True)

    def _pwrite(self, result: int, _existed: bool, descriptor: int, data: Any, offset: int) -> None:
        node = self._node(descriptor)
        if node is not None:
            self._note(Written(node, offset, bytes(data)[:result]))

    def _ftruncate(self, _result: None, _existed: bool, descriptor: int, size: int) -> None:
        node = self._node(descriptor)
        if node is not None:
            self._note(Resized(node, size))

    def _posix_fallocate(self, _result: None, _existed: bool, descriptor: int, offset: int, size: int) -> None:
        node = self._node(descriptor)
        if node is not None:
            self._note(Resized(node, offset + size))

    def _fsync(self, _result: None, _existed: bool, descriptor: int) -> None:
        node = self._node(descriptor)
        if node is not None:
            self._note(Synced(node))

    _fdatasync = _fsync  # it makes a size safe, too, where bytes could not be read without it

    def _unlink(self, _result: None, _existed: bool, path: Any, *_: Any) -> None:
        name = self._name(path)
        if name is not None:
            self._note(Link(((name, None),)))
            self._by_path.pop(os.fspath(path))

    def _renamed(self, _result: None, _existed: bool, source: Any, target: Any) -> None:
        old, new = self._name(source), self._name(target)
        if old is None or new is None:
            return
        node = self._by_path[os.fspath(source)]
        self._note(Link(((old, None), (new, node))))
        self._by_path.pop(os.fspath(source))
        self._by_path[os.fspath(target)] = node


def _inode(file: Any) -> tuple[int, int]:
    """Return what tells a file from all others for as long as somebody has it open, or it has a name."""
    status = os.stat(file)  # noqa: PTH116
    return status.st_dev, status.st_ino
