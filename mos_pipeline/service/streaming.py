"""The pieces of an answer that the owner of a store gives, one by one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

from mos_pipeline.errors import MosError
from mos_pipeline.messages import Response

__all__ = ["RemoteStream"]

PIECE_S = 600.0  # a model may be silent for so long
CLOSE_S = 10.0  # for the piece that was asked for before, and for adding what was seen


class RemoteStream:
    """As ``ResponseStream``, by way of the owner's socket; not for several threads at once.

    A client that dies, or asks for no piece for two minutes, adds nothing.

    Attributes:
        response: the whole, once it has ended or was closed; None before, and where nothing was said.
        guard: entered while the exchange is added, as in ``ResponseStream``.
    """

    def __init__(
        self,
        connection: socket.socket,
        ask: Callable[..., Any],
        taken: Callable[[Any], Response | None],
    ) -> None:
        """Take over ``connection``, whose answer has begun.

        Args:
            connection: to be closed at the end.
            ask: with ``message`` and ``wait_s``, sends a message, none where it is empty, and returns the next answer.
            taken: returns the response in the last one, or raises the error that it is.
        """
        self.response: Response | None = None
        self.guard: Callable[[], AbstractContextManager[object]] = nullcontext
        self._connection = connection
        self._ask = ask
        self._taken = taken
        self._seen = 0
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._over:
            raise StopIteration
        try:
            answer = self._ask(message=["next"], wait_s=PIECE_S)
        except MosError:
            self._end()
            raise
        if _is_piece(answer):
            self._seen += 1
            return str(answer[1])
        self._end()
        self.response = self._taken(answer)
        raise StopIteration

    def close(self) -> None:
        """End here: add what was handed out so far, if anything was; again, and it changes nothing."""
        if self._over:
            return
        try:
            with self.guard():
                answer = self._ask(message=["close", self._seen], wait_s=CLOSE_S)
                while _is_piece(answer):  # asked for when a signal came: nobody has seen it
                    answer = self._ask(message=[], wait_s=CLOSE_S)
                self.response = self._taken(answer)
        finally:
            self._end()

    def _end(self) -> None:
        self._over = True
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_piece(answer: Any) -> bool:
    return isinstance(answer, list) and len(answer) == 2 and answer[0] == "piece"
