"""An OpenAI-compatible server on loopback, in a thread of the calling process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from mos_pipeline.testing.http import HttpRequest, head, read_request
from mos_pipeline.testing.replies import Reply
from mos_pipeline.testing.script import Request, Script
from mos_pipeline.testing.sensible import sensible_content

__all__ = ["FakeOpenAI"]

FORMATS = ("json_schema", "json_object", "text")
CHARS_OF_TOKEN = 4
PIECE_CHARS = 16  # of a streamed answer
PIECE_BYTES = 1 << 16
CREATED = 1_700_000_000
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
PATIENCE_S = 60.0


class FakeOpenAI:
    """Answers ``/v1/chat/completions``, plain and streamed, and ``/v1/models``, as ``script`` tells. A context manager.

    Attributes:
        script: how requests are answered.
        requests: the latest ones, oldest first.
        calls: requests that came.
        answered: those that were answered in full, with status 200.
        tokens_in, tokens_out: of those, as told to the client.
        in_flight: requests that are not answered yet.
        most_in_flight: the most there ever were.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        api_key: str = "",
        formats: Sequence[str] = FORMATS,
        refused: Sequence[str] = (),
        keep: int = 10_000,
    ) -> None:
        """Make a server; it listens within ``with``.

        Args:
            port: 0 takes a free one.
            api_key: requests with another are refused (401); empty takes any.
            formats: kinds of ``response_format`` that it knows; others are refused (400).
            refused: parameters that it refuses (400), as some models do ``max_tokens`` or ``temperature``.
            keep: requests that are kept.
        """
        self.script = Script()
        self.requests: deque[Request] = deque(maxlen=keep)
        self.calls = self.answered = self.tokens_in = self.tokens_out = 0
        self.in_flight = self.most_in_flight = 0
        self._port = port
        self._api_key = api_key
        self._formats = frozenset(formats)
        self._refused = tuple(refused)
        self._came = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-openai", daemon=True)

    @property
    def base_url(self) -> str:
        """The address for ``llm.base_url``."""
        return f"http://127.0.0.1:{self._port}/v1"

    def up(self) -> None:
        """Listen, at the same address as before."""
        self._run(self._listen())

    def down(self) -> None:
        """Stop listening and reset all connections, until ``up``."""
        self._run(self._close())

    def wait_for_calls(self, count: int, timeout: float = PATIENCE_S) -> None:
        """Wait until so many requests have come, all told.

        Raises:
            TimeoutError: they have not.
        """
        with self._came:
            if not self._came.wait_for(lambda: self.calls >= count, timeout):
                raise TimeoutError(f"{self.calls} of {count} calls came within {timeout} s")

    def wait_until_idle(self, timeout: float = PATIENCE_S) -> None:
        """Wait until no request is being answered any more: each is answered, or its client has gone.

        Raises:
            TimeoutError: some are.
        """
        with self._came:
            if not self._came.wait_for(lambda: not self.in_flight, timeout):
                raise TimeoutError(f"{self.in_flight} requests are still being answered after {timeout} s")

    def __enter__(self) -> FakeOpenAI:
        self._thread.start()
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._connections)
        for task, writer in self._connections.items():
            _reset(writer)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (for the type checker)
        self._connections[task] = writer
        try:
            while (http := await read_request(reader)) is not None:
                await self._answer(http, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server is told to be
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(self, http: HttpRequest, writer: asyncio.StreamWriter) -> None:
        error = self._error(http)
        if error is not None:
            writer.write(_json(*error))
        elif http.path == "/v1/models":
            writer.write(
                _json(200, {"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "nobody"}]})
            )
        else:
            await self._complete(self._noted(http), writer)

    def _noted(self, http: HttpRequest) -> Request:
        with self._came:
            self.calls += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            request = Request(self.calls, time.monotonic(), http.headers, http.body, self.in_flight)
            self.requests.append(request)
            self._came.notify_all()
        return request

    def _left(self, _: Request) -> None:
        with self._came:
            self.in_flight -= 1
            self._came.notify_all()

    def _error(self, http: HttpRequest) -> tuple[int, dict[str, Any]] | None:
        """Return status and body where the request is none that can be answered."""
        if http.path == "/v1/models":
            return None
        if http.path != "/v1/chat/completions":
            return 404, _told(f"there is no {http.path}")
        key = http.headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key and key != self._api_key:
            return 401, _told(f"Incorrect API key provided: {key}")  # with the key, as careless servers do
        messages, model = http.body.get("messages"), http.body.get("model")
        if not isinstance(messages, list) or not messages or not isinstance(model, str):
            return 400, _told("messages must be an array, and not empty; model must be a string")
        unknown = self._unknown(http.body)
        if unknown:
            self._left(self._noted(http))
            return 400, _told(unknown)
        return None

    def _unknown(self, body: Mapping[str, Any]) -> str:
        """Return what of a request is refused; empty where nothing is."""
        for name in self._refused:
            if name in body:
                return f"Unsupported parameter: {name!r}"
        form = (body.get("response_format") or {"type": "text"}).get("type")
        return "" if form in self._formats else f"response_format of type {form!r} is not supported"

    async def _complete(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer; all is counted just before the last bytes leave, so that no client knows of them earlier."""
        left = False

        def leave(usage: Mapping[str, int] | None = None) -> None:
            nonlocal left
            if not left:
                self._left(request)
            left = True
            if usage is not None:
                self.answered += 1
                self.tokens_in += usage["prompt_tokens"]
                self.tokens_out += usage["completion_tokens"]

        try:
            await self._reply(request, writer, leave)
        finally:
            leave()

    async def _reply(self, request: Request, writer: asyncio.StreamWriter, leave: Callable[..., None]) -> None:
        reply = self.script.reply(request)
        await asyncio.sleep(self.script.latency_s + reply.latency_s)
        if reply.end == "hang":
            await asyncio.Event().wait()
        if reply.status >= 400:
            leave()
            writer.write(_json(reply.status, _told(f"as the script says: {reply.status}"), reply.headers))
            return
        text = sensible_content(request)
        if reply.changed is not None:
            text = reply.changed(text)
        usage = _usage(request, text)
        streamed = bool(request.body.get("stream"))
        if reply.body is not None:
            parts = [reply.body]
        elif streamed:
            parts = _events(request, text, usage)
        else:
            parts = [json.dumps(_completion(request, text, usage)).encode()]
        await _send(
            writer, reply, parts, "text/event-stream" if streamed else "application/json", partial(leave, usage)
        )


def _events(request: Request, text: str, usage: dict[str, int]) -> list[bytes]:
    """Return the server-sent events of a streamed answer."""
    events = [_chunk(request, {"role": "assistant", "content": ""})]
    events += [_chunk(request, {"content": text[at : at + PIECE_CHARS]}) for at in range(0, len(text), PIECE_CHARS)]
    events.append(_chunk(request, {}, "stop"))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        events.append({**_chunk(request, {}), "choices": [], "usage": usage})
    return [*(f"data: {json.dumps(event)}\n\n".encode() for event in events), b"data: [DONE]\n\n"]


async def _send(
    writer: asyncio.StreamWriter, reply: Reply, parts: list[bytes], kind: str, before_last: Callable[[], None]
) -> None:
    whole = sum(map(len, parts))
    writer.write(head(reply.status, kind, whole, reply.headers))
    if not reply.pause_s:
        parts = [b"".join(parts)]
    left = whole if reply.end == "whole" else whole // 2
    for part in parts:
        await asyncio.sleep(reply.pause_s)
        for at in range(0, len(part), PIECE_BYTES):
            piece = part[at : at + PIECE_BYTES][:left]
            left -= len(piece)
            if reply.end == "whole" and not left:
                before_last()
            writer.write(piece)
            await writer.drain()
    if reply.end == "stall":
        await asyncio.Event().wait()
    if reply.end == "reset":
        _reset(writer)
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


def _json(status: int, value: dict[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    body = json.dumps(value).encode()
    return head(status, "application/json", len(body), headers or {}) + body


def _told(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _usage(request: Request, text: str) -> dict[str, int]:
    asked = sum(len(str(message.get("content", ""))) for message in request.messages) // CHARS_OF_TOKEN
    told = len(text) // CHARS_OF_TOKEN
    return {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}


def _completion(request: Request, text: str, usage: dict[str, int]) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {**_named(request, "chat.completion"), "choices": [choice], "usage": usage}


def _chunk(request: Request, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {**_named(request, "chat.completion.chunk"), "choices": [choice]}


def _named(request: Request, kind: str) -> dict[str, Any]:
    return {"id": f"fake-{request.number}", "object": kind, "created": CREATED, "model": request.body["model"]}
