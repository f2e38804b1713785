"""What crosses the owner's socket: a question and its answer, and more of them where the client goes on.

    length u32, big endian | msgpack [version, method, args, kwargs]
    length u32, big endian | msgpack ["ok", result] or ["error", class, message, pid]

A method is one of METHODS; a class is one of ``errors.py``, and is raised as the same class on the other side.

``respond_stream`` is answered by ["ok", nil] when its pieces can be asked for, which the client does one by one:
["next"] is answered by ["piece", text], or at the end by ["ok", response]; ["close", n] ends it before, n being how
many pieces were seen.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import Any, NamedTuple

from mos_pipeline import errors
from mos_pipeline.errors import DeadlineError, InputError, MosError, StoreLockedError
from mos_pipeline.messages import decode, encode

__all__ = [
    "MAX_BYTES",
    "METHODS",
    "PROTOCOL",
    "STREAM",
    "Inbox",
    "Request",
    "comes",
    "error_from",
    "pack_error",
    "parse_request",
    "receive",
    "send",
]

PROTOCOL = 1
STREAM = "respond_stream"
MAX_BYTES = 256 << 20
METHODS = frozenset(
    {
        "add",
        "add_batch",
        "compact",
        "flush",
        "forget",
        "get",
        "knowledge",
        "pages",
        "profile",
        "repay",
        "respond",
        "respond_stream",
        "retrieve",
        "retry",
        "sessions",
        "sources",
        "stats",
        "users",
        "wait_idle",
    }
)

_LENGTH = struct.Struct(">I")
CHUNK = 1 << 16
LONGEST_S = 1e6  # poll takes milliseconds in 32 bits
_ERRORS = {name: getattr(errors, name) for name in errors.__all__}


class Request(NamedTuple):
    """A question: which method, and its arguments."""

    method: str
    args: list[Any]
    kwargs: dict[str, Any]


def parse_request(message: Any) -> Request:
    """Return a decoded message as the request that it is.

    Raises:
        InputError: it is none, or one of another version.
    """
    match message:
        case [version, str(method), list(args), dict(kwargs)]:
            if version != PROTOCOL:
                raise InputError(f"the owner speaks version {PROTOCOL}, was asked in {version!r:.20}; use one version")
            if method not in METHODS:
                raise InputError(f"the owner answers no {method!r:.50}; it answers {', '.join(sorted(METHODS))}")
            return Request(method, args, kwargs)
    raise InputError("what came over the owner's socket is no request")


def send(connection: socket.socket, message: Any, deadline: float) -> None:
    """Send one message by ``deadline`` (monotonic seconds).

    Raises:
        InputError: it can't be packed, or is too long.
        DeadlineError: the other side does not take it.
        OSError: the other side is gone.
    """
    try:
        body = encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"this can't be sent to the owner ({error}); use what msgpack can hold") from None
    if len(body) > MAX_BYTES:
        raise InputError(f"a message of {len(body)} bytes is longer than the {MAX_BYTES} that the socket takes")
    view = memoryview(_LENGTH.pack(len(body)) + body)
    while view:
        _wait(connection, select.POLLOUT, deadline)
        with contextlib.suppress(BlockingIOError):
            view = view[connection.send(view[: 16 * CHUNK]) :]


def receive(connection: socket.socket, deadline: float) -> Any:
    """Return one decoded message that is whole by ``deadline`` (monotonic seconds).

    Raises:
        InputError: what came is no message, or too long.
        DeadlineError: it did not come in time.
        EOFError: the other side is gone.
        OSError: the connection broke.
    """
    return Inbox(connection).receive(deadline)


class Inbox:
    """What comes over a connection, message by message. One that was broken into by a signal is read on."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = bytearray()  # grown as bytes come, so that a length alone costs nothing

    def receive(self, deadline: float) -> Any:
        """Return a message, as the function does, and raise what it raises."""
        self._have(_LENGTH.size, deadline)
        (length,) = _LENGTH.unpack(self._data[: _LENGTH.size])
        if length > MAX_BYTES:
            raise InputError(f"a message of {length} bytes is longer than the {MAX_BYTES} that the socket takes")
        self._have(_LENGTH.size + length, deadline)
        body = bytes(self._data[_LENGTH.size :])
        self._data.clear()
        try:
            return decode(body)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"what came over the socket is no msgpack ({error!r:.200})") from None

    def _have(self, size: int, deadline: float) -> None:
        while len(self._data) < size:
            _wait(self._connection, select.POLLIN, deadline)
            piece = self._connection.recv(min(16 * CHUNK, size - len(self._data)))
            if not piece:
                raise EOFError("the other side is gone")
            self._data += piece


def comes(connection: socket.socket, deadline: float) -> bool:
    """Return whether something comes from the other side, its end included, by ``deadline`` (monotonic seconds)."""
    return _ready(connection, select.POLLIN, deadline)


def _ready(connection: socket.socket, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(min(max(0.0, deadline - time.monotonic()), LONGEST_S) * 1000))


def _wait(connection: socket.socket, event: int, deadline: float) -> None:
    if not _ready(connection, event, deadline):
        raise DeadlineError("the other side of the owner's socket did not come on in time")


def pack_error(error: MosError) -> list[Any]:
    """Return an error as an answer; one of no class in ``errors.py`` goes as its nearest one."""
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    return ["error", kind, str(error), getattr(error, "pid", None)]


def error_from(kind: str, message: str, pid: int | None) -> MosError:
    """Return the error that ``pack_error`` was given."""
    if kind == StoreLockedError.__name__:
        return StoreLockedError(message, pid)
    found: MosError = _ERRORS.get(kind, MosError)(message)
    return found
