"""Where threads spend their processor time: the stack of each, every few milliseconds of that time.

A timer on the thread's own processor clock sends it a signal, and ``faulthandler``'s handler, which needs no
interpreter lock, writes the stack that the signal met. A thread that looks at the others' stacks would meet them only
where they give up that lock; a profiler that is told of every call makes short functions look long.

The kernel looks at such timers when its clock ticks, every few milliseconds.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

from mos_pipeline.engine.engine import Engine
from mos_pipeline.runtime.supervisor import Role
from mos_pipeline.runtime.worker import Stage

__all__ = ["Frame", "Stacks", "ThreadSampler", "children_sampled", "parse", "stacks_of"]

INTERVAL_NS = 1_000_000
_THREAD_ID = 4  # SIGEV_THREAD_ID: the signal goes to that thread
_FRAME = re.compile(r'  File "(.*)", line \d+ in (.*)')
_HEAD = "Stack (most recent call first):"

Frame = tuple[str, str]  # file, function
Stacks = Counter[tuple[Frame, ...]]  # innermost frame first


class _Event(ctypes.Structure):
    """A ``struct sigevent``."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_char * 44),
    )


class _Span(ctypes.Structure):
    """A ``struct timespec``."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Times(ctypes.Structure):
    """A ``struct itimerspec``."""

    _fields_ = (("interval", _Span), ("value", _Span))


class ThreadSampler:
    """Samples one thread from now on; a thread needs a ``number`` of its own among those sampled in its process."""

    def __init__(self, thread: threading.Thread, path: Path, number: int = 0) -> None:
        """Append the stacks of ``thread``, which runs, to ``path``.

        Called in the main thread, as all that sets what signals do.

        Raises:
            OSError: the system has no such timers.
        """
        self._signal = signal.SIGRTMIN + number
        self._file: FileIO = path.open("ab", buffering=0)
        # What comes when sampling has stopped, to a thread that had no core until then, would end the process.
        signal.signal(self._signal, signal.SIG_IGN)
        faulthandler.register(self._signal, file=self._file, all_threads=False)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Event(None, self._signal, _THREAD_ID, thread.native_id, b"")
        clock = time.pthread_getcpuclockid(thread.ident or 0)
        self._check(self._libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self._timer)))
        span = _Span(0, INTERVAL_NS)
        times = _Times(span, span)
        self._check(self._libc.timer_settime(self._timer, 0, ctypes.byref(times), None))

    def stop(self) -> None:
        """Sample no more. A signal that is still on its way is ignored."""
        self._libc.timer_delete(self._timer)
        faulthandler.unregister(self._signal)
        self._file.close()

    def _check(self, failed: int) -> None:
        if failed:
            faulthandler.unregister(self._signal)
            self._file.close()
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True, slots=True)
class _Sampled:
    """Makes a stage in its process, whose thread is sampled from then on."""

    build: Callable[..., Stage]
    folder: Path

    def __call__(self, *args: Any) -> Stage:
        ThreadSampler(threading.current_thread(), self.folder / str(os.getpid()))
        return self.build(*args)


@contextmanager
def children_sampled(folder: Path) -> Iterator[None]:
    """Have the processes of pipelines that are opened in the block sampled, each into a file named by its id."""
    roles = Engine._roles

    def sampled(self: Engine) -> list[Role]:
        return [replace(role, build=_Sampled(role.build, folder)) for role in roles(self)]

    Engine._roles = sampled  # type: ignore[method-assign]
    try:
        yield
    finally:
        Engine._roles = roles  # type: ignore[method-assign]


def stacks_of(path: Path, start: int = 0) -> Stacks:
    """Return the stacks that a file has from byte ``start`` on."""
    return parse(path.read_bytes()[start:].decode("utf-8", "replace"))


def parse(text: str) -> Stacks:
    """Return the stacks that ``faulthandler`` has written; one that is cut off counts as far as it goes."""
    found: Stacks = Counter()
    for part in text.split(_HEAD)[1:]:
        frames = tuple((match[1], match[2]) for match in _FRAME.finditer(part))
        if frames:
            found[frames] += 1
    return found
