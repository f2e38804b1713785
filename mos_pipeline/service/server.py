"""The owner's side of the socket: a thread that waits for connections, and one for each question that is under way.

Nobody can hold the owner up: a question has to be whole, and its answer taken, within a time limit, and the next one of
the same client has to come within one, too; so many clients are answered at the most, and whoever comes beyond that is
told so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

from mos_pipeline.errors import BackpressureError, DeadlineError, InputError, MosError
from mos_pipeline.messages import SourceMark
from mos_pipeline.service.address import bound
from mos_pipeline.service.protocol import STREAM, Request, comes, pack_error, parse_request, receive, send
from mos_pipeline.service.wire import as_plain

__all__ = ["OwnerServer"]

logger = logging.getLogger(__name__)

MAX_CLIENTS = 16
REQUEST_S = 10.0  # until a question is whole
NEXT_S = 10.0  # until the next one comes
ANSWER_S = 30.0  # until its answer is taken
PIECE_S = 120.0  # until the next piece of an answer is asked for
REST_MS = 100  # after a connection that could not be accepted
_CREDENTIALS = struct.Struct("3i")


class OwnerServer:
    """Answers on the socket at ``path`` with what the methods of a memory return."""

    def __init__(self, path: Path, memory: object) -> None:
        """Listen, and answer from now on.

        Raises:
            OSError: no socket can be had at ``path``.
        """
        self._path = path
        self._memory = memory
        self._listener = bound(path)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._clients: dict[threading.Thread, socket.socket] = {}
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="mos-owner-socket", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Take no more questions; those under way are still answered."""
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._path.unlink(missing_ok=True)  # before the listener goes: nobody connects to what is not answered
        self._listener.close()
        with self._lock:
            for connection in self._clients.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # what has come is still read
        os.close(self._wake_read)
        os.close(self._wake_write)

    def end(self, timeout_s: float) -> None:
        """Wait for what is under way, for ``timeout_s`` at most, and cut off the rest; after ``stop``."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            clients = dict(self._clients)
        for thread in clients:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread, connection in clients.items():
            if thread.is_alive():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                thread.join(timeout_s)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            if any(descriptor == self._wake_read for descriptor, _ in poll.poll()):
                return
            try:
                self._accept()
            except (OSError, RuntimeError) as error:  # no descriptor or thread is left, or whoever knocked has gone
                logger.warning("%s: a connection could not be accepted: %s", self._path, error)
                poll.unregister(self._listener)
                poll.poll(REST_MS)
                poll.register(self._listener, select.POLLIN)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        thread = threading.Thread(
            target=copy_context().run, args=(self._serve, connection), name="mos-owner-client", daemon=True
        )
        with self._lock:
            crowded = len(self._clients) >= MAX_CLIENTS
            if not crowded:
                self._clients[thread] = connection
        if crowded:
            self._refuse(connection)
            return
        try:
            thread.start()
        except BaseException:
            self._forget(thread, connection)
            raise

    def _refuse(self, connection: socket.socket) -> None:
        error = BackpressureError(f"{self._path}: {MAX_CLIENTS} clients are being answered already; ask again")
        with connection, contextlib.suppress(OSError, MosError):
            send(connection, pack_error(error), time.monotonic())  # it fits into the socket's buffer, or not at all

    def _serve(self, connection: socket.socket) -> None:
        try:
            while self._answer(connection) and comes(connection, time.monotonic() + NEXT_S):
                pass
        except EOFError:  # it asks no more; or it only looked whether there is somebody
            pass
        except (OSError, MosError) as error:  # the client's own affair: it has gone, or does not read
            logger.info("%s: a client was left without an answer: %s", self._path, error)
        except Exception:  # the thread's edge
            logger.exception("%s: a client could not be answered", self._path)
        finally:
            self._forget(threading.current_thread(), connection)

    def _forget(self, thread: threading.Thread, connection: socket.socket) -> None:
        connection.close()
        with self._lock:
            self._clients.pop(thread, None)

    def _answer(self, connection: socket.socket) -> bool:
        """Answer one question; return whether the connection is good for another one."""
        try:
            _check_peer(connection)
            request = parse_request(receive(connection, time.monotonic() + REQUEST_S))
            if request.method == STREAM:
                return self._stream(connection, request)
            answer = ["ok", as_plain(self._call(request))]
        except MosError as error:
            answer = pack_error(error)
        try:
            send(connection, answer, time.monotonic() + ANSWER_S)
        except InputError as error:  # longer than may be sent; nothing of it was
            answer = pack_error(error)
            send(connection, answer, time.monotonic() + ANSWER_S)
        return bool(answer[0] == "ok")

    def _stream(self, connection: socket.socket, request: Request) -> bool:
        """Hand out the pieces of an answer, each when it is asked for; the connection is good for nothing more.

        Raises:
            MosError: there is no such answer; nothing was sent.
            EOFError, OSError: the client has gone; nothing is added.
        """
        stream = self._call(request)
        try:
            answer: list[Any] = ["ok", None]
            send(connection, answer, time.monotonic() + ANSWER_S)
            over = False
            while not over:
                answer = self._word(stream, receive(connection, time.monotonic() + PIECE_S))
                over = answer[0] != "piece"
                send(connection, answer, time.monotonic() + ANSWER_S)
        except DeadlineError as error:
            logger.info("%s: a client has asked for no more of an answer: %s", self._path, error)
        finally:
            stream.abandon()
        return False

    def _word(self, stream: Any, word: Any) -> list[Any]:
        """Return what is answered to a client's word about a stream."""
        try:
            with self._told_of_faults(STREAM):
                match word:
                    case ["next"]:
                        piece = next(stream, None)
                        if piece is not None:
                            return ["piece", piece]
                    case ["close", int(seen)]:
                        stream.close(seen)
                    case _:
                        raise InputError("a client asks for next or close of an answer, and for nothing else")
                return ["ok", as_plain(stream.response)]
        except MosError as error:
            return pack_error(error)

    def _call(self, request: Request) -> Any:
        _make_marks(request)
        with self._told_of_faults(request.method):
            try:
                return getattr(self._memory, request.method)(*request.args, **request.kwargs)
            except TypeError as error:
                raise InputError(f"{request.method} was asked for with arguments it does not take ({error})") from error

    @contextlib.contextmanager
    def _told_of_faults(self, method: str) -> Iterator[None]:
        try:
            yield
        except MosError:
            raise
        except Exception as error:  # a task's edge: the owner goes on, and whoever asked is told
            logger.exception("%s: %s failed", self._path, method)
            raise MosError(f"the owner failed unexpectedly: {error!r:.500}") from error


def _make_marks(request: Request) -> None:
    """Make pages' sources what they were before they crossed; what is none is refused as any other wrong argument."""
    pages: Any = request.args[0] if request.method == "add_batch" and request.args else [request.kwargs]
    for page in pages if isinstance(pages, list) else ():
        source = page.get("source") if isinstance(page, dict) else None
        if isinstance(source, list) and len(source) == 2:
            page["source"] = SourceMark._make(source)


def _check_peer(connection: socket.socket) -> None:
    """Refuse other users than the owner's and root, whatever became of the file's mode."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(data)
    if user not in {0, os.geteuid()}:
        raise InputError("the owner's socket answers its own user alone")
