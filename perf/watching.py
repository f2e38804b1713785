"""Looking at something again and again while something else goes on."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Sampler"]

T = TypeVar("T")


class Sampler(Generic[T]):
    """Calls ``look`` every ``every_s`` seconds in a thread of its own, from entering its block until leaving it.

    Attributes:
        seen: what it has returned each time, in order.

    Raises:
        Exception: on leaving, what ``look`` has raised; it is not called again after that.
    """

    def __init__(self, look: Callable[[], T], every_s: float) -> None:
        self.seen: list[T] = []
        self._look = look
        self._every_s = every_s
        self._stop = Event()
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, name="sampler")

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every_s):
                self.seen.append(self._look())
        except Exception as error:  # noqa: BLE001 (raised again by the thread that waits)
            self._failure = error

    def __enter__(self) -> Sampler[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure
