"""Every error the library raises on purpose, as one tree.

    MosError
    ├── ConfigError            a setting is unknown, of the wrong type or out of range (also a ValueError)
    ├── InputError             an argument or a file can't be taken (also a ValueError)
    │   └── RecordError            one record of a file can't be taken; those after it may
    ├── ClosedError            the pipeline was used after close(), or in a forked child
    ├── BackpressureError      the backlog is at its high-water mark
    ├── DeadlineError          something did not happen in its time limit (also a TimeoutError)
    ├── WorkerError            a child process can't do its work
    │   └── ModelNotFoundError     the embedding model is nowhere to be found
    └── StoreError             the folder on disk can't be used
        ├── StoreLockedError       another live process owns it
        ├── StoreVersionError      written by a format this version doesn't read
        ├── StoreDamagedError      a structure is broken in a way that can't be set aside
        ├── StoreFullError         the disk, the quota or /dev/shm has no room left
        └── ModelMismatchError     its vectors come from another embedding model

Each message says what happened, to what, and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "BackpressureError",
    "ClosedError",
    "ConfigError",
    "DeadlineError",
    "InputError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "MosError",
    "RecordError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreVersionError",
    "WorkerError",
]


class MosError(Exception):
    """Root of the tree: catch this to catch everything the library raises on purpose."""


class ConfigError(MosError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class InputError(MosError, ValueError):
    """An argument, or a record of a file, can't be taken; nothing was stored."""


class RecordError(InputError):
    """A record of a file can't be taken; nothing of it was stored, and those after it may still be read.

    Attributes:
        source: the file.
        place: where in it, for people: ``line 3``, ``conversation 4, message 2``.
        line: the line, from 1; None where the file is not read line by line.
        field: the field that is wrong; None where it is the whole record.
        reason: what is wrong, and how to mend it.
        raw: the record as it stands in the file, in the format ``format``; None where it is too long to be kept.
        format: the name of that format.
    """

    def __init__(
        self,
        message: str,
        source: str = "",
        place: str = "",
        line: int | None = None,
        field: str | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.source = source
        self.place = place
        self.line = line
        self.field = field
        self.reason = reason
        self.raw: bytes | None = None
        self.format = ""


class ClosedError(MosError):
    """The pipeline was used after ``close()``, or in a forked child of its owner."""


class BackpressureError(MosError):
    """The backlog is at its high-water mark and the page was not accepted."""


class DeadlineError(MosError, TimeoutError):
    """Something did not happen within its time limit."""


class WorkerError(MosError):
    """A child process can't do its work."""


class ModelNotFoundError(WorkerError):
    """The embedding model is in none of the places where it is looked for."""


class StoreError(MosError):
    """The store's folder can't be used."""


class StoreLockedError(StoreError):
    """Another live process owns the store.

    Attributes:
        pid: the owner's process id, or ``None`` where it could not be read.
    """

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class StoreVersionError(StoreError):
    """The store was written in a format that this version does not read."""


class StoreDamagedError(StoreError):
    """A structure that everything else depends on is broken."""


class StoreFullError(StoreError):
    """There is no room left on the disk, in the quota or in /dev/shm."""


class ModelMismatchError(StoreError):
    """The store's vectors come from another embedding model than the configured one."""
