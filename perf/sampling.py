"""Where threads spend their processor time: the stack of each, every few milliseconds of that time.

A timer on the thread's own processor clock sends a signal, whose handler notes the stack. Python runs it in the main
thread, between two instructions: a main thread tells its own stack. Of another one it tells what that thread is at when
it gives up the interpreter lock, which it is asked to do at once, while it is sampled. (``faulthandler`` would look at
the very instruction, without the lock, and now and then at a frame that is gone: the process died of it. It may also
die where garbage is collected in the midst of a look at another thread's frames.) A profiler that is told of every call
makes short functions look long.

The kernel looks at such timers when its clock ticks, every few milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from mos_pipeline.engine.engine import Engine
from mos_pipeline.runtime.supervisor import Role
from mos_pipeline.runtime.worker import Stage

__all__ = ["Frame", "Stacks", "ThreadSampler", "children_sampled", "parse", "stacks_of"]

INTERVAL_NS = 1_000_000
AT_ONCE_S = 1e-4  # the interpreter lock is given up within, while a thread is sampled that is not the main one
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
        """Append the stacks of ``thread``, which runs, to ``path``. Called in the main thread, as ``stop`` is.

        Raises:
            OSError: the system has no such timers.
        """
        self._signal = signal.SIGRTMIN + number
        self._thread = thread
        self._noting = False
        self._file = path.open("ab", buffering=0)  # one write for a stack: another process may read
        self._switch_s = sys.getswitchinterval()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        main = threading.main_thread()
        event = _Event(None, self._signal, _THREAD_ID, main.native_id, b"")
        clock = time.pthread_getcpuclockid(thread.ident or 0)
        signal.signal(self._signal, self._note)
        self._check(self._libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self._timer)))
        span = _Span(0, INTERVAL_NS)
        times = _Times(span, span)
        self._check(self._libc.timer_settime(self._timer, 0, ctypes.byref(times), None))
        if thread is not main:
            sys.setswitchinterval(AT_ONCE_S)

    def stop(self) -> None:
        """Sample no more. A signal that is still on its way does nothing."""
        self._libc.timer_delete(self._timer)
        self._end()
        sys.setswitchinterval(self._switch_s)

    def _note(self, _signal: int, frame: FrameType | None) -> None:
        if self._noting:  # where it waits long for a core the next signal comes before it has done: they would pile up
            return
        # Python 3.11 may collect whenever an object is made, also one for another thread's frame. What that calls may
        # give up the lock; the thread goes on, and the frame that was looked at is gone. Collecting may be off already,
        # by the handler of another sampler, which this one has interrupted.
        collects = gc.isenabled()
        try:
            self._noting = True
            gc.disable()
            self._file.write(self._stack(frame).encode("utf-8", "replace"))
        finally:
            if collects:
                gc.enable()
            self._noting = False

    def _stack(self, frame: FrameType | None) -> str:
        if self._thread is not threading.main_thread():
            frame = sys._current_frames().get(self._thread.ident or 0)
        lines = [_HEAD]
        while frame is not None:
            lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
            frame = frame.f_back
        return "\n".join(lines) + "\n"

    def _end(self) -> None:
        signal.signal(self._signal, _nothing)
        self._file.close()

    def _check(self, failed: int) -> None:
        if failed:
            self._end()
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _nothing(_signal: int, _frame: FrameType | None) -> None:
    """Take a signal that comes late: ignoring it from now on would let Python complain of one that it has noted."""


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
    """Return the stacks that were written; one that is cut off counts as far as it goes."""
    found: Stacks = Counter()
    for part in text.split(_HEAD)[1:]:
        frames = tuple((match[1], match[2]) for match in _FRAME.finditer(part))
        if frames:
            found[frames] += 1
    return found
