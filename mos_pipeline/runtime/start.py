"""How children start: the one place for the start method and for CPython's private names about it.

Children are spawned, never forked: the caller may have threads, and the models certainly do. ``spawn`` would also
import the caller's ``__main__`` into every child, so that an unguarded script starts itself again and code from stdin
can't start at all. Our workers need nothing from ``__main__``, so it is left out of what they are told.
"""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context, popen_spawn_posix, process, reduction, spawn, synchronize, util
from multiprocessing.queues import Queue
from typing import Any

__all__ = ["ChildProcess", "InheritedFd", "semaphores_named", "spawn_context", "unlink_semaphores"]

spawn_context = context.SpawnContext()

UNKNOWN_EXIT = 255


_naming = threading.Lock()


@contextmanager
def semaphores_named(prefix: str) -> Iterator[None]:
    """Have names of semaphores made in the block begin with ``prefix``, so that a killed owner's can be told later."""
    kind: Any = synchronize.SemLock
    with _naming:
        # Not the prefix that CPython's own would read: joblib, where the caller has it, puts another in its place.
        before = vars(kind)["_make_name"]
        kind._make_name = staticmethod(lambda: f"/{prefix}-{os.urandom(4).hex()}")
        try:
            yield
        finally:
            kind._make_name = before


def unlink_semaphores(queue: Queue[Any]) -> None:
    """Remove the names of a queue's semaphores now; by itself that waits for the garbage collector."""
    semaphores = {id(each) for each in (queue._rlock, queue._wlock, queue._sem)}  # type: ignore[attr-defined]
    finalizers: list[Any] = list(util._finalizer_registry.values())  # type: ignore[attr-defined]
    for finalize in finalizers:
        if finalize._weakref is not None and id(finalize._weakref()) in semaphores:
            finalize()


def _preparation_without_main(name: str) -> dict[str, Any]:
    prepared: dict[str, Any] = spawn.get_preparation_data(name)
    prepared.pop("init_main_from_name", None)
    prepared.pop("init_main_from_path", None)
    return prepared


class _Popen(popen_spawn_posix.Popen):
    # CPython's own _launch, with one name in its globals exchanged. Hiding __main__.__file__ for a moment instead
    # would be seen by the caller's other threads.
    _launch = types.FunctionType(
        popen_spawn_posix.Popen._launch.__code__,  # type: ignore[attr-defined]
        {
            **vars(popen_spawn_posix),
            "spawn": types.SimpleNamespace(**{**vars(spawn), "get_preparation_data": _preparation_without_main}),
        },
    )

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """As CPython's; but a child that was waited for, and of which nothing is known, has ended."""
        code = super().poll(flag)
        if code is None and not flag:
            # The caller ignores SIGCHLD or reaps every child by itself. CPython would take it for alive for ever.
            self.returncode = code = UNKNOWN_EXIT
        return code


class ChildProcess(context.SpawnProcess):
    """A spawned process that doesn't import the caller's ``__main__``."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  (multiprocessing's name)
        return _Popen(process_obj)


def _disown() -> None:
    """In a child that the caller forked: at its exit multiprocessing would end what it takes for its own children."""
    children: set[Any] = vars(process)["_children"]
    children.difference_update([child for child in children if isinstance(child, ChildProcess)])


os.register_at_fork(after_in_child=_disown)


class InheritedFd:
    """A file descriptor that a child gets as its own: pass it among the process's arguments."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (reduction.DupFd(self.fd),)


def _rebuilt(duplicate: Any) -> InheritedFd:
    return InheritedFd(duplicate.detach())
