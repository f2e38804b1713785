"""A disk as POSIX promises it, and no better: what was not synced may be lost, torn or written in any order.

Files and folders are nodes with numbers. A file's bytes and size are safe once it was synced; a name, once its folder
was. Until then, when the power fails:

- of each write any of the 512-byte sectors may be on the disk, whatever the order in which they were written;
- a file's size may be the old one, or reach as far as some write of which no sector came;
- each making, renaming and removal of a name may have come to pass or not, whatever the order; a rename, as in every
  file system with a journal, does so as a whole.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["SECTOR", "Disk", "Link", "Made", "Name", "Resized", "Synced", "Written"]

SECTOR = 512


class Name(NamedTuple):
    """A name in a folder."""

    folder: int
    name: str


class Made(NamedTuple):
    """A node came into being; it has no name yet."""

    node: int
    is_folder: bool


class Written(NamedTuple):
    """Bytes were written into a file, by a call or through a mapping."""

    node: int
    offset: int
    data: bytes


class Resized(NamedTuple):
    """A file got a size: cut off, or with zeros behind what it had."""

    node: int
    size: int


class Link(NamedTuple):
    """Names that mean another node from now on, or none; all of them at once."""

    names: tuple[tuple[Name, int | None], ...]


class Synced(NamedTuple):
    """All that was done to a file, or to the names in a folder, is on the disk."""

    node: int


Change = Written | Resized
Operation = Made | Written | Resized | Link | Synced


@dataclass(slots=True)
class _File:
    safe: bytes = b""
    pending: list[Change] = field(default_factory=list)


class Disk:
    """What is on the disk for sure, and what is on its way there. Node 0 is the topmost folder."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._folders: dict[int, dict[str, int]] = {0: {}}
        self._pending: list[Link] = []

    def copy(self) -> Disk:
        """Return a copy that knows nothing of what happens to this one."""
        other = Disk()
        other._files = {node: _File(file.safe, list(file.pending)) for node, file in self._files.items()}
        other._folders = {node: dict(names) for node, names in self._folders.items()}
        other._pending = list(self._pending)
        return other

    def apply(self, operation: Operation) -> None:
        """Let something happen."""
        match operation:
            case Made(node, True):
                self._folders[node] = {}
            case Made(node, False):
                self._files[node] = _File()
            case Written(node) | Resized(node):
                self._files[node].pending.append(operation)
            case Link():
                self._pending.append(operation)
            case Synced(node) if node in self._folders:
                self._sync_folder(node)
            case Synced(node):
                file = self._files[node]
                file.safe, file.pending = _after(file.safe, file.pending), []

    def _sync_folder(self, folder: int) -> None:
        waiting = []
        for link in self._pending:
            if any(name.folder == folder for name, _ in link.names):
                self._enter(link)
            else:
                waiting.append(link)
        self._pending = waiting

    def _enter(self, link: Link) -> None:
        for (folder, name), node in link.names:
            if node is None:
                self._folders[folder].pop(name, None)
            else:
                self._folders[folder][name] = node

    def settled(self) -> Disk:
        """Return the disk once all is on it: what processes see that outlive the one that wrote."""
        after = self.copy()
        for link in after._pending:
            after._enter(link)
        after._pending = []
        for node in after._files:
            after.apply(Synced(node))
        return after

    def lost(self) -> Disk:
        """Return the disk after a power cut that spares nothing which was not synced."""
        after = self.copy()
        after._pending = []
        for file in after._files.values():
            file.pending = []
        return after

    def broken(self, rng: random.Random) -> Disk:
        """Return the disk after some power cut: what was not synced may be there in part."""
        after = self.copy()
        share = rng.choice((0.1, 0.5, 0.9))
        for link in after._pending:
            if rng.random() < share:
                after._enter(link)
        after._pending = []
        for file in after._files.values():
            if file.pending:
                file.safe, file.pending = _broken(rng, file), []
        return after

    @property
    def unsafe(self) -> bool:
        """Whether a power cut could take anything."""
        return bool(self._pending) or any(file.pending for file in self._files.values())

    def content(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield path and bytes of whatever has a name: None for a folder, which comes before what is in it."""
        yield from self._content(0, "")

    def _content(self, folder: int, path: str) -> Iterator[tuple[str, bytes | None]]:
        for name, node in sorted(self._folders[folder].items()):
            if node in self._folders:
                yield path + name, None
                yield from self._content(node, f"{path}{name}/")
            else:
                yield path + name, self._files[node].safe

    def digest(self) -> bytes:
        """Return a hash of all that has a name."""
        hashed = hashlib.blake2b(digest_size=16)
        for path, data in self.content():
            hashed.update(f"{path}\0{-1 if data is None else len(data)}\0".encode("utf-8", "surrogateescape"))
            hashed.update(data or b"")
        return hashed.digest()

    def build(self, folder: Path) -> None:
        """Make files and folders of all that has a name, in ``folder``, which is there and empty."""
        for path, data in self.content():
            if data is None:
                (folder / path).mkdir(mode=0o700)
            else:
                (folder / path).write_bytes(data)

    def nodes(self) -> Iterator[tuple[str, int]]:
        """Yield path and number of whatever has a name, once all is on the disk."""
        yield from self.settled()._nodes(0, "")

    def _nodes(self, folder: int, path: str) -> Iterator[tuple[str, int]]:
        for name, node in self._folders[folder].items():
            yield path + name, node
            if node in self._folders:
                yield from self._nodes(node, f"{path}{name}/")

    @property
    def next_node(self) -> int:
        """A number that no node has, nor any above it."""
        return 1 + max([*self._files, *self._folders])


def _after(data: bytes, changes: list[Change]) -> bytes:
    content = bytearray(data)
    for change in changes:
        if isinstance(change, Resized):
            del content[change.size :]
            _grow(content, change.size)
        else:
            _put(content, change.offset, change.data)
    return bytes(content)


def _grow(content: bytearray, size: int) -> None:
    content.extend(bytes(max(0, size - len(content))))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    _grow(content, offset + len(data))
    content[offset : offset + len(data)] = data


def _broken(rng: random.Random, file: _File) -> bytes:
    """Return what a power cut leaves of a file: all, nothing, the first changes, or any sectors of them."""
    match rng.randrange(5):
        case 0:
            return file.safe
        case 1:
            return _after(file.safe, file.pending)
        case 2:
            return _after(file.safe, file.pending[: rng.randrange(len(file.pending) + 1)])
    return _torn(rng, file)


def _torn(rng: random.Random, file: _File) -> bytes:
    content, share = bytearray(file.safe), rng.choice((0.2, 0.5, 0.8, 0.97))
    for change in file.pending:
        if isinstance(change, Resized):
            if rng.random() < share:
                del content[change.size :]
                _grow(content, change.size)
            continue
        for offset, sector in _sectors(change):
            if rng.random() < share:
                _put(content, offset, sector)
        if rng.random() < 0.5:  # the size came, and not every byte
            _grow(content, change.offset + len(change.data))
    return bytes(content)


def _sectors(change: Written) -> Iterator[tuple[int, bytes]]:
    at, stop = change.offset, change.offset + len(change.data)
    while at < stop:
        until = min(stop, (at // SECTOR + 1) * SECTOR)
        yield at, change.data[at - change.offset : until - change.offset]
        at = until
