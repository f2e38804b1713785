"""The other side of the owner's socket: MemoryPipeline's methods, carried out by the store's owner.

Each call is one connection, but for batches, which follow one another on theirs. Arguments are checked by the owner,
and what it raises is raised here as the same class.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mos_pipeline.errors import DeadlineError, InputError, StoreError
from mos_pipeline.messages import (
    Added,
    Compacted,
    Knowledge,
    Page,
    Profile,
    Repaid,
    Response,
    Retrieved,
    Session,
    encode,
)
from mos_pipeline.metrics import Stats
from mos_pipeline.service.address import connected
from mos_pipeline.service.protocol import PROTOCOL, STREAM, Inbox, error_from, send
from mos_pipeline.service.streaming import RemoteStream
from mos_pipeline.service.wire import as_plain, from_plain
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.lock import live_owner

__all__ = ["RemoteMemory"]

CONNECT_S = 5.0
CALL_S = 120.0  # an owner that lives and says nothing for so long, beyond the time that was asked for, hangs
ANSWER_S = 600.0  # a model may write for so long
LONG_S = 24 * 3600.0
SLICE_S = 30.0
KEEP_S = 5.0  # how long a connection that is not used is good for another batch; the owner gives it up later (NEXT_S)


class RemoteMemory:
    """A store that another process owns, asked by way of its socket; from any thread. Close it, or use ``with``.

    The methods are those of ``MemoryPipeline``, and raise besides:

    * StoreError: the owner has gone, or speaks another version.
    * DeadlineError: the owner hangs.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Ask the owner of the store in the folder ``path``.

        Raises:
            StoreError: it does not answer.
        """
        self._folder = StoreFolder(Path(path).absolute())
        self.owner = live_owner(self._folder.lock)
        self._lock = threading.Lock()
        self._kept: tuple[socket.socket, float, int] | None = None  # for the next batch; since when, whose
        with self._connect():
            pass

    def add(self, user_id: str, user_input: str, agent_response: str, **options: Any) -> str:
        """Have a page accepted; as ``MemoryPipeline.add``."""
        return str(self._ask(str, "add", user_id, user_input, agent_response, **options))

    def add_batch(
        self, pages: Iterable[Mapping[str, Any] | Page], *, timeout: float | None = None, stop: bool = False
    ) -> list[Added]:
        """Have pages accepted; as ``MemoryPipeline.add_batch``. They go in one message, which has 256 MiB at most.

        Raises besides:
            StoreError: the owner went away. What it had not answered for may be there or not: add it again, with the
                same ``page_id`` or ``source``.
        """
        packed, unsendable = list[Any](), dict[int, str]()
        for page in pages:
            plain = as_plain(page)
            try:
                encode(plain)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                unsendable[len(packed)] = f"the page can't be sent to the owner ({error}); use what msgpack can hold"
                plain = None  # no page, which the owner refuses in its turn
            packed.append(plain)
        message = [PROTOCOL, "add_batch", [packed], {"timeout": timeout, "stop": stop}]
        connection = self._kept_connection()
        try:
            answer = self._exchange(connection, message, _beyond(timeout))
        except BaseException:
            connection.close()
            raise
        self._keep(connection, answer)
        found: list[Added] = self._taken(list[Added], "add_batch", answer)
        return [replace(one, refused=unsendable.get(place, one.refused)) for place, one in enumerate(found)]

    def forget(self, user_id: str | None = None, **options: Any) -> int:
        """Have pages forgotten; as ``MemoryPipeline.forget``."""
        return int(self._ask(int, "forget", user_id, **options))

    def retrieve(self, user_id: str, query: str, **options: Any) -> Retrieved:
        """Find pages; as ``MemoryPipeline.retrieve``."""
        wait = options.get("timeout")
        found: Retrieved = self._ask(Retrieved, "retrieve", user_id, query, _patience=_beyond(wait), **options)
        return found

    def respond(self, user_id: str, query: str, **options: Any) -> Response:
        """Have a question answered; as ``MemoryPipeline.respond``, but for ``model``: the owner's answers."""
        wait = ANSWER_S + _beyond(options.get("timeout"))
        answer: Response = self._ask(Response, "respond", user_id, query, _patience=wait, **options)
        return answer

    def respond_stream(self, user_id: str, query: str, **options: Any) -> RemoteStream:
        """Have a question answered piece by piece; as ``MemoryPipeline.respond_stream``, but for ``model``."""
        connection = self._connect()
        try:
            inbox, kwargs = Inbox(connection), as_plain(options)
            message, wait_s = [PROTOCOL, STREAM, [user_id, query], kwargs], CALL_S + _beyond(options.get("timeout"))
            self._taken(None, STREAM, self._said(connection, inbox, message, STREAM, wait_s))
        except BaseException:
            connection.close()
            raise

        ask = partial(self._said, connection, inbox, method=STREAM)
        return RemoteStream(connection, ask, partial(self._taken, Response, STREAM))

    def get(self, page_id: str) -> Page | None:
        """Return a page; as ``MemoryPipeline.get``."""
        page: Page | None = self._ask(Page, "get", page_id)
        return page

    def pages(self, user_id: str | None = None, **options: Any) -> list[Page]:
        """Return pages; as ``MemoryPipeline.pages``."""
        pages: list[Page] = self._ask(list[Page], "pages", user_id, **options)
        return pages

    def sessions(self, user_id: str, **options: Any) -> list[Session]:
        """Return topics; as ``MemoryPipeline.sessions``."""
        sessions: list[Session] = self._ask(list[Session], "sessions", user_id, **options)
        return sessions

    def profile(self, user_id: str, **options: Any) -> Profile:
        """Return a profile; as ``MemoryPipeline.profile``."""
        profile: Profile = self._ask(Profile, "profile", user_id, **options)
        return profile

    def knowledge(self, user_id: str, **options: Any) -> list[Knowledge]:
        """Return facts; as ``MemoryPipeline.knowledge``."""
        facts: list[Knowledge] = self._ask(list[Knowledge], "knowledge", user_id, **options)
        return facts

    def users(self) -> list[str]:
        """Return all users; as ``MemoryPipeline.users``."""
        users: list[str] = self._ask(list[str], "users")
        return users

    def sources(self) -> dict[bytes, int]:
        """Return what files were read; as ``MemoryPipeline.sources``."""
        sources: dict[bytes, int] = self._ask(dict[bytes, int], "sources")
        return sources

    def stats(self) -> Stats:
        """Return the owner's figures; as ``MemoryPipeline.stats``."""
        stats: Stats = self._ask(Stats, "stats")
        return stats

    def retry(self) -> int:
        """Give out again what was set aside; as ``MemoryPipeline.retry``."""
        return int(self._ask(int, "retry"))

    def repay(self, user_id: str | None = None, **options: Any) -> Repaid:
        """Ask the model again for what it owes; as ``MemoryPipeline.repay``."""
        timeout = options.get("timeout")
        patience = LONG_S if timeout is None else _beyond(timeout)
        repaid: Repaid = self._ask(Repaid, "repay", user_id, _patience=patience, **options)
        return repaid

    def compact(self, timeout: float | None = None) -> Compacted:
        """Have segments compacted; as ``MemoryPipeline.compact``."""
        patience = LONG_S if timeout is None else _beyond(timeout)
        result: Compacted = self._ask(Compacted, "compact", timeout, _patience=patience)
        return result

    def flush(self, *, durable: bool = True, timeout: float | None = None) -> None:
        """Have everything written; as ``MemoryPipeline.flush``."""
        _in_slices(timeout, lambda wait: self._ask(None, "flush", durable=durable, timeout=wait, _patience=wait))

    def wait_idle(self, timeout: float | None = None) -> None:
        """Wait for all work; as ``MemoryPipeline.wait_idle``."""
        _in_slices(timeout, lambda wait: self._ask(None, "wait_idle", wait, _patience=wait))

    def close(self) -> None:
        """Let go of the connection to the owner, which goes on."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            kept[0].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RemoteMemory({str(self._folder.root)!r}, owner {self.owner})"

    def _ask(self, kind: Any, method: str, *args: Any, _patience: float = 0.0, **kwargs: Any) -> Any:
        """Return the owner's answer as a ``kind``; ``_patience`` are the seconds that the call itself may wait."""
        with contextlib.closing(self._connect()) as connection:
            answer = self._exchange(connection, [PROTOCOL, method, as_plain(args), as_plain(kwargs)], _patience)
        return self._taken(kind, method, answer)

    def _exchange(self, connection: socket.socket, message: list[Any], patience: float) -> Any:
        return self._said(connection, Inbox(connection), message, message[1], CALL_S + patience)

    def _said(self, connection: socket.socket, inbox: Inbox, message: list[Any], method: str, wait_s: float) -> Any:
        """Send a message, and return what it is answered within ``wait_s`` seconds."""
        deadline = time.monotonic() + wait_s
        try:
            # An owner that refuses may have answered, and gone, before it has read everything.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if message:
                    send(connection, message, deadline)
            return inbox.receive(deadline)
        except (OSError, EOFError) as error:
            if isinstance(error, DeadlineError):
                raise DeadlineError(f"{self._told} has not answered {method} in time; does it hang?") from None
            raise StoreError(f"{self._told} went away before it had answered {method} ({error})") from error

    def _kept_connection(self) -> socket.socket:
        """Return the connection of the batch before, if the owner still listens there, or a new one."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            connection, since, process = kept
            if time.monotonic() - since < KEEP_S and process == os.getpid():  # not with a forked child's parent
                return connection
            connection.close()
        return self._connect()

    def _keep(self, connection: socket.socket, answer: Any) -> None:
        """Keep a connection for the next batch; the owner has closed it after an error."""
        with self._lock:
            if self._kept is None and isinstance(answer, list) and answer[:1] == ["ok"]:
                self._kept = connection, time.monotonic(), os.getpid()
                return
        connection.close()

    def _taken(self, kind: Any, method: str, answer: Any) -> Any:
        match answer:
            case ["ok", result]:
                try:
                    return from_plain(kind, result)
                except (TypeError, KeyError, AttributeError) as error:
                    raise StoreError(f"{self._told} speaks another version: {method} gave {error!r:.200}") from error
            case ["error", str(name), str(message), pid]:
                raise error_from(name, message, pid)
        raise StoreError(f"{self._told} speaks another version: {method} gave {answer!r:.100}")

    def _connect(self) -> socket.socket:
        try:
            connection = connected(self._folder.socket, CONNECT_S)
        except OSError as error:
            if self.owner is None or live_owner(self._folder.lock) != self.owner:
                gone = "" if self.owner is None else f"process {self.owner} went away: "
                raise StoreError(
                    f"{self._folder.root}: {gone}nobody who lives has this store open, and so answers on no socket; "
                    "open it"
                ) from error
            raise StoreError(
                f"{self._told} has this store open and answers on no socket ({error.strerror or error}): is the "
                "setting runtime.socket off there, or does it hang? To change the store, do so in that process, close "
                "it there first, or switch runtime.socket on there"
            ) from error
        connection.setblocking(False)
        return connection

    @property
    def _told(self) -> str:
        return f"{self._folder.root}: process {self.owner}"


def _beyond(timeout: object) -> float:
    """Return the seconds that a call may wait; what is no such number is for the owner to refuse."""
    number = isinstance(timeout, int | float) and math.isfinite(timeout)
    return max(0.0, float(timeout)) if number else 0.0  # type: ignore[arg-type]


def _in_slices(timeout: float | None, wait: Callable[[float], Any]) -> None:
    """Call ``wait`` with short time limits until it comes through, or ``timeout`` is over.

    Raises:
        DeadlineError: from ``wait``, when the time is up.
        InputError: ``timeout`` is no number of seconds.
    """
    if timeout is not None and not isinstance(timeout, int | float):
        raise InputError(f"timeout must be a number of seconds, found {timeout!r:.100}")
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            wait(max(0.0, min(SLICE_S, left)))
        except DeadlineError:
            if left <= SLICE_S:
                raise
        else:
            return
