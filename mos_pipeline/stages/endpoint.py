"""One call to an OpenAI-compatible endpoint: what is sent, how much of the answer is taken, and what a failure means.

The client's own retries are switched off: ``stages/caller.py`` has the only layer of them. The answer's bytes are read
here and not by the client, so that one that is too long is cut off while it arrives, and one that is no answer does no
harm.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from mos_pipeline import config
from mos_pipeline.config import MASK
from mos_pipeline.errors import ConfigError
from mos_pipeline.stages.prompts import Prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["FORMATS", "Completion", "Endpoint", "FailedError", "LateError", "RefusedError", "UnknownFormatError"]

ANSWER_BYTES = 1 << 20
CHARS_OF_TOKEN = 4
REASON_CHARS = 300
LOOKED_AT_CHARS = 10_000  # of a reason, which may be an endpoint's whole page
AGAIN = frozenset({408, 409, 429})  # and all from 500 on
BUSY = frozenset({429, 503})
FORMATS = ("json_schema", "json_object", "text")  # ways to ask for JSON, the strictest first
UNKNOWN_FORMAT = frozenset({400, 404, 415, 422, 501})
NO_KEY = "none"  # the client wants one where the endpoint does not


class RefusedError(Exception):
    """The endpoint refuses the call for good: asking again would not help."""


class FailedError(Exception):
    """The call failed, and may succeed when it is made again.

    Attributes:
        pause_s: how long the endpoint asks to wait; None where it does not say.
        busy: whether it refused because of too many calls.
    """

    def __init__(self, reason: str, pause_s: float | None = None, *, busy: bool = False) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        self.busy = busy


class LateError(FailedError):
    """The call took longer than ``llm.timeout_s``."""


class UnknownFormatError(Exception):
    """The endpoint refuses the call, and it may be for the ``form`` in which it is asked for JSON."""

    def __init__(self, reason: str, form: int) -> None:
        super().__init__(reason)
        self.form = form


class Completion(NamedTuple):
    """An answer; empty where the endpoint answered with something that is none.

    Attributes:
        whole: whether it is all there; False where the model had to stop, or the answer was cut off for its length.
    """

    text: str
    whole: bool
    tokens_in: int
    tokens_out: int


class Endpoint:
    """An endpoint. Made in the process that uses it.

    Attributes:
        form: index into ``FORMATS``: the strictest way to ask for JSON that the endpoint was not found to refuse.
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
        self.form = 0
        self._proven = False  # whether the endpoint has answered in that format

    async def complete(self, prompt: Prompt, form: int) -> Completion:
        """Make one call, asking for JSON in one of the ways of ``FORMATS``; ``form`` is the one to begin with.

        Raises:
            FailedError: it failed, and may succeed another time.
            UnknownFormatError: it was refused, perhaps for its way to ask for JSON; try the next one.
            RefusedError: it was refused for good.
        """
        completion = await self._call(prompt, form)
        self.form = min(form, self.form) if self._proven else form
        self._proven = True
        return completion

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    def shown(self, text: object) -> str:
        """Return a text from outside that may be logged: short, and without the key."""
        told = str(text)[:LOOKED_AT_CHARS]
        return " ".join((told.replace(self._key, MASK) if self._key else told).split())[:REASON_CHARS]

    async def _call(self, prompt: Prompt, form: int) -> Completion:
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                body = await self._body(prompt, FORMATS[form])
        except (TimeoutError, openai.APITimeoutError):
            raise LateError(f"no answer within {self._settings.timeout_s:g} s") from None
        except openai.APIStatusError as error:
            raise self._of_status(error, form) from None
        except openai.APIConnectionError as error:
            raise FailedError(self.shown(f"no connection ({error.__cause__ or error})")) from None
        return _completion(body, prompt)

    async def _body(self, prompt: Prompt, form: str) -> bytes | None:
        """Return the answer as it came; None where it is longer than any that is wanted, and was cut off."""
        create: Any = self._client.chat.completions.with_streaming_response.create
        asked = {"model": self._settings.model, "messages": prompt.messages, **_response_format(form, prompt)}
        async with create(**asked) as response:
            body = bytearray()
            try:
                async for piece in response.iter_bytes():
                    body += piece
                    if len(body) > ANSWER_BYTES:
                        return None
            except Exception as error:  # noqa: BLE001  (of which HTTP library, depends on the client's version)
                raise FailedError(self.shown(f"the answer broke off ({error!r})")) from None
            return bytes(body)

    def _of_status(self, error: Any, form: int) -> Exception:
        status: int = error.status_code
        reason = self.shown(f"status {status}: {error.message}")
        if status in AGAIN or (status >= 500 and status not in UNKNOWN_FORMAT):
            return FailedError(reason, _pause(error.response.headers), busy=status in BUSY)
        last = self.form if self._proven else len(FORMATS) - 1
        if status in UNKNOWN_FORMAT:
            if form < last:
                self.form = max(self.form, form + 1)
                return UnknownFormatError(reason, form)
            if not self._proven:  # refused in every format: it was not for that
                self.form = 0
        return RefusedError(reason)


def _client(settings: config.Llm, key: str) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    # The client's own time limit is one of silence; the call's is kept by asyncio.
    return AsyncOpenAI(api_key=key, base_url=settings.base_url or None, max_retries=0, timeout=settings.timeout_s)


def _response_format(form: str, prompt: Prompt) -> dict[str, Any]:
    if form == "json_schema":
        named = {"name": prompt.task, "strict": True, "schema": prompt.schema}
        return {"response_format": {"type": form, "json_schema": named}}
    return {"response_format": {"type": form}} if form == "json_object" else {}


def _completion(body: bytes | None, prompt: Prompt) -> Completion:
    """Read an answer, whatever it is; what can't be read is an empty one."""
    size = sum(len(message["content"]) for message in prompt.messages) // CHARS_OF_TOKEN
    if body is None:
        return Completion("", False, size, ANSWER_BYTES // CHARS_OF_TOKEN)
    try:
        answer = json.loads(body.decode())
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        answer, text, reason = {}, "", None
    text = text if isinstance(text, str) else ""
    usage = answer.get("usage")
    tokens_in = _count(usage, "prompt_tokens", size)
    return Completion(
        text, reason != "length", tokens_in, _count(usage, "completion_tokens", len(text) // CHARS_OF_TOKEN)
    )


def _count(usage: Any, name: str, instead: int) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < 1 << 32 else instead


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
