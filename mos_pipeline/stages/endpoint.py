"""One call to an OpenAI-compatible endpoint: what is sent, how much of the answer is taken, and what a failure means.

The client's own retries are switched off: ``stages/caller.py`` has the only layer of them. The answer's bytes are read
here and not by the client, so that one that is too long is cut off while it arrives, and one that is no answer does no
harm.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from mos_pipeline import config
from mos_pipeline.config import MASK
from mos_pipeline.errors import ConfigError
from mos_pipeline.stages.completion import (
    CHARS_OF_TOKEN,
    Chat,
    Completion,
    about_tokens,
    read_completion,
    streamed_completion,
)
from mos_pipeline.stages.ladder import Ladder
from mos_pipeline.stages.prompts import Prompt
from mos_pipeline.stages.streamed import StreamedAnswer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = [
    "FORMATS",
    "WAYS",
    "BrokenOffError",
    "Endpoint",
    "FailedError",
    "LateError",
    "RefusedError",
    "UnknownFormatError",
]

ANSWER_BYTES = 1 << 20
REASON_CHARS = 300
LOOKED_AT_CHARS = 10_000  # of a reason, which may be an endpoint's whole page
AGAIN = frozenset({408, 409, 429})  # and all from 500 on
BUSY = frozenset({429, 503})
FORMATS = ("json_schema", "json_object", "text")  # ways to ask for JSON, the strictest first
UNKNOWN_FORMAT = frozenset({400, 404, 415, 422, 501})
WAYS = (  # to bound an answer: by the first name, by that of newer models, some of which take no temperature, or not
    ("max_tokens", "temperature", "stream_options"),
    ("max_completion_tokens", "temperature", "stream_options"),
    ("max_completion_tokens", "stream_options"),
    ("max_tokens",),
    (),
)
UNKNOWN_WAY = frozenset({400, 422, 501})
STREAM_BYTES = 16 << 20  # each piece comes with its event around it, and thoughts come beside the answer
NO_KEY = "none"  # the client wants one where the endpoint does not
NO_ANSWER = "what came is no answer to a chat"
TOO_LONG = f"the answer is longer than {ANSWER_BYTES} bytes"


class RefusedError(Exception):
    """The endpoint refuses the call for good: asking again would not help.

    Attributes:
        status: by which HTTP status; None where what it answered is of no use.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class BrokenOffError(Exception):
    """A streamed answer ended too soon when a part of it had been handed out."""


class FailedError(Exception):
    """The call failed, and may succeed when it is made again.

    Attributes:
        pause_s: how long the endpoint asks to wait; None where it does not say.
        busy: whether it refused because of too many calls.
        down: whether it is no sign of life: no answer, one that broke off, or a fault of the server's own.
        read: whether the prompt may have been read, and count.
    """

    def __init__(
        self, reason: str, pause_s: float | None = None, *, busy: bool = False, down: bool = True, read: bool = True
    ) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        self.busy = busy
        self.down = down
        self.read = read


class LateError(FailedError):
    """The call took longer than ``llm.timeout_s``."""


class UnknownFormatError(Exception):
    """The endpoint refuses the call, and it may be for the ``form`` in which it is asked for JSON, or the way."""

    def __init__(self, reason: str, form: int) -> None:
        super().__init__(reason)
        self.form = form


class Endpoint:
    """An endpoint. Made in the process that uses it.

    Attributes:
        formats: of ``FORMATS``, the strictest way to ask for JSON that the endpoint was not found to refuse.
        ways: likewise of ``WAYS``, for answers in pieces (True) and whole ones.
    """

    def __init__(self, settings: config.Llm) -> None:
        """Make the client; nothing is sent.

        Raises:
            ConfigError: there is neither a key nor an address.
        """
        self._settings = settings
        self._key = settings.api_key or os.environ.get("OPENAI_API_KEY", "")
        if not self._key and not settings.base_url:
            raise ConfigError(
                "llm.provider is openai, but there is no key: set llm.api_key or the environment's OPENAI_API_KEY, or "
                "llm.base_url where the endpoint wants none"
            )
        self._client: AsyncOpenAI = _client(settings, self._key or NO_KEY)
        self.formats = Ladder(len(FORMATS))
        self.ways = {stream: Ladder(len(WAYS)) for stream in (False, True)}

    async def complete(self, prompt: Prompt, form: int) -> Completion:
        """Make one call, asking for JSON in one of the ways of ``FORMATS`` that are not before ``form``.

        Raises:
            FailedError: it failed, and may succeed another time.
            UnknownFormatError: it was refused, perhaps for its way to ask for JSON; try the next one.
            RefusedError: it was refused for good.
        """
        form = max(form, self.formats.rung)
        with self._failures(self.formats, form, UNKNOWN_FORMAT):
            async with asyncio.timeout(self._settings.timeout_s):
                body = await self._body(messages=prompt.messages, **_response_format(FORMATS[form], prompt))
        self.formats.taken(form)
        if body is None:
            return Completion("", False, about_tokens(prompt.messages), ANSWER_BYTES // CHARS_OF_TOKEN)
        try:
            return read_completion(body, about_tokens(prompt.messages))
        except ValueError:
            return Completion("", True, about_tokens(prompt.messages), 0)

    async def chat(self, chat: Chat, way: int, tell: Callable[[str], None]) -> Completion:
        """Make one call for an answer, bounding it in one of ``WAYS`` that are not before ``way``.

        Where its pieces are wanted, each goes to ``tell`` as it comes, and the completion's text is what is left. Then
        ``llm.timeout_s`` is how long the endpoint may be silent; else how long the whole call may take.

        Raises:
            BrokenOffError: it failed, and ``tell`` was called.
            FailedError, UnknownFormatError, RefusedError: as from ``complete``.
        """
        ladder = self.ways[chat.stream]
        way = max(way, ladder.rung)
        asked = {"messages": chat.messages, **_bounds(WAYS[way], chat)}
        answer = StreamedAnswer()
        try:
            with self._failures(ladder, way, UNKNOWN_WAY):
                async with asyncio.timeout(self._settings.timeout_s) as silence:
                    if chat.stream:
                        body = await self._stream(answer, tell, silence, **asked)
                    elif (body := await self._body(**asked)) is None:
                        raise RefusedError(TOO_LONG)
        except (FailedError, RefusedError) as error:
            if answer.chars:
                raise BrokenOffError(str(error)) from None
            raise
        ladder.taken(way)
        if body is None:
            return streamed_completion(answer.usage, chat.tokens, answer.chars)
        return self._whole(body, chat)

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    def shown(self, text: object) -> str:
        """Return a text from outside that may be logged: short, and without the key."""
        told = str(text)[:LOOKED_AT_CHARS]
        return " ".join((told.replace(self._key, MASK) if self._key else told).split())[:REASON_CHARS]

    @contextmanager
    def _failures(self, ladder: Ladder, rung: int, unknown: frozenset[int]) -> Iterator[None]:
        """Tell what a failure of the call inside means; statuses in ``unknown`` may be for the way it is asked."""
        import openai

        try:
            yield
        except (TimeoutError, openai.APITimeoutError):
            raise LateError(f"no answer within {self._settings.timeout_s:g} s (llm.timeout_s)") from None
        except openai.APIStatusError as error:
            status, reason = error.status_code, self.shown(f"status {error.status_code}: {error.message}")
            if status in AGAIN or (status >= 500 and status not in unknown):
                pause = _pause(error.response.headers)
                down = status >= 500 and not (status in BUSY and pause is not None)  # one that says when is there
                read = status not in BUSY
                raise FailedError(reason, pause, busy=status in BUSY, down=down, read=read) from None
            if status in unknown and ladder.refused(rung):
                raise UnknownFormatError(reason, rung) from None
            raise RefusedError(reason, status) from None
        except openai.APIConnectionError as error:
            raise FailedError(self.shown(f"no connection ({error.__cause__ or error})"), read=False) from None

    async def _body(self, **asked: Any) -> bytes | None:
        """Return the answer as it came; None where it is longer than any that is wanted, and was cut off."""
        create: Any = self._client.chat.completions.with_streaming_response.create
        async with create(model=self._settings.model, **asked) as response:
            return await self._read(response)

    async def _read(self, response: Any) -> bytes | None:
        body = bytearray()
        async for piece in self._pieces(response):
            body += piece
            if len(body) > ANSWER_BYTES:
                return None
        return bytes(body)

    async def _stream(
        self, answer: StreamedAnswer, tell: Callable[[str], None], silence: asyncio.Timeout, **asked: Any
    ) -> bytes | None:
        """Hand out the text of a streamed answer; where the endpoint does not stream, return the body as it came."""
        create: Any = self._client.chat.completions.with_streaming_response.create
        clock, size = asyncio.get_running_loop().time, 0
        async with create(model=self._settings.model, stream=True, **asked) as response:
            if "json" in response.headers.get("content-type", ""):
                if (body := await self._read(response)) is None:
                    raise RefusedError(TOO_LONG)
                return body
            async for data in self._pieces(response):
                silence.reschedule(clock() + self._settings.timeout_s)
                size += len(data)
                try:
                    text = answer.feed(data)
                except ValueError as error:
                    raise RefusedError(self.shown(f"{NO_ANSWER}: {error}: {data.decode(errors='replace')}")) from None
                if text:
                    tell(text)
                if answer.error:
                    raise FailedError(self.shown(f"the endpoint says, amid the answer: {answer.error}"))
                if answer.ended:
                    break
                if size > STREAM_BYTES or answer.chars > ANSWER_BYTES:
                    raise RefusedError(TOO_LONG)
        if not answer.over:
            raise FailedError("the answer broke off")
        return None

    async def _pieces(self, response: Any) -> AsyncIterator[bytes]:
        try:
            async for piece in response.iter_bytes():
                yield piece
        except Exception as error:  # noqa: BLE001  (of which HTTP library, depends on the client's version)
            raise FailedError(self.shown(f"the answer broke off ({error!r})")) from None

    def _whole(self, body: bytes, chat: Chat) -> Completion:
        try:
            return read_completion(body, chat.tokens)
        except ValueError:
            raise RefusedError(self.shown(f"{NO_ANSWER}: {body.decode(errors='replace')}")) from None


def _client(settings: config.Llm, key: str) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    # The client's own time limit is one of silence; the call's is kept by asyncio.
    return AsyncOpenAI(api_key=key, base_url=settings.base_url or None, max_retries=0, timeout=settings.timeout_s)


def _response_format(form: str, prompt: Prompt) -> dict[str, Any]:
    if form == "json_schema":
        named = {"name": prompt.task, "strict": True, "schema": prompt.schema}
        return {"response_format": {"type": form, "json_schema": named}}
    return {"response_format": {"type": form}} if form == "json_object" else {}


def _bounds(way: tuple[str, ...], chat: Chat) -> dict[str, Any]:
    told: dict[str, Any] = dict.fromkeys(("max_tokens", "max_completion_tokens"), chat.max_tokens)
    told["temperature"] = chat.temperature
    if chat.stream:
        told["stream_options"] = {"include_usage": True}
    return {name: told[name] for name in way if name in told}


def _pause(headers: Any) -> float | None:
    """Return the seconds that Retry-After asks for, given as a number or as a date; None where it can't be read."""
    text = headers.get("retry-after", "")
    try:
        pause = float(text)
    except ValueError:
        try:
            pause = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, pause) if pause < float("inf") else None
