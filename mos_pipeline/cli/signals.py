"""Ctrl-C and SIGTERM, while a command runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupted", "Signals", "ctrl_c_blocked"]


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.number = number


class Signals:
    """Handlers for SIGINT and SIGTERM, for the length of a ``with``.

    The first signal raises Interrupted in the main thread, or is only noted inside ``held()``: an exception at any
    bytecode inside ``add`` could leave a page half accepted. Later ones change nothing, so that an impatient second
    Ctrl-C doesn't break into the closing of the store. A signal that the command was started to ignore (as ``nohup``
    and a shell's ``&`` do) stays ignored.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._received: int | None = None
        self._holds = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in self.NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            if not self._holds:
                raise Interrupted(number)


@contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the ``with``; threads started inside never get it, nor do their children.

    A terminal sends it to children, too, and one that is just starting Python would die of it with a traceback.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start blocks and unblocks the signal, and would end the blocking here
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
