"""Ctrl-C, SIGTERM and the SIGHUP of a closing terminal, while a command runs."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupted", "Signals", "terminal_blocked"]


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.number = number


class Signals:
    """Handlers for SIGINT, SIGTERM and SIGHUP, for the length of a ``with``.

    The first signal raises Interrupted in the main thread, or is only noted inside ``held()``: an exception at any
    bytecode inside ``add`` could leave a page half accepted. Later ones change nothing, so that an impatient second
    Ctrl-C doesn't break into the closing of the store. A signal that the command was started to ignore (as ``nohup``
    and a shell's ``&`` do) stays ignored.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._received: int | None = None
        self._holds = 0
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        self._wake_read = self._wake_write = -1

    def __enter__(self) -> Signals:
        # Written to by the interpreter itself: a handler in Python would run too late for a wait that just begins.
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup_before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in self.NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wake_read)
        os.close(self._wake_write)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only note a signal that comes inside the ``with``; ``check`` tells."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self._received is not None:
            raise Interrupted(self._received)

    def wait(self, timeout_s: float | None = None, descriptor: int | None = None) -> None:
        """Return when ``descriptor`` can be read, or ``timeout_s`` is over.

        Raises:
            Interrupted: a signal came, before or meanwhile.
        """
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self.check()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = [found for found, _ in poll.poll(None if left is None else left * 1000)]
            if self._wake_read not in ready:
                return
            os.read(self._wake_read, 512)  # also of signals that are somebody else's, and end nothing here

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            if not self._holds:
                raise Interrupted(number)


@contextmanager
def terminal_blocked() -> Iterator[None]:
    """Let Ctrl-C and SIGHUP wait until the end of the ``with``.

    Threads started inside never get them, nor do their children: a terminal sends them to those, too, and one that is
    just starting Python would die of them.
    """
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # the tracker ignores all else by itself
    resource_tracker.ensure_running()  # its start blocks and unblocks Ctrl-C, and would end the blocking here
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
