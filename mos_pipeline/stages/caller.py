"""Asking a model until it has answered or its time is over: the one layer of retries.

A prompt waits for its turn (a place in the gate, the hour's budget) as long as it takes. From then on it has
``llm.deadline_s`` for all its calls and the pauses between them: as long as the endpoint asks for, where it does, and
some more, jittered and doubling. Where an answer can't be used, the model is told why and asked once more.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from mos_pipeline import config
from mos_pipeline.runtime.meter import Meter
from mos_pipeline.stages.answers import BreaksOffError, Mended, UnusableError, parsed
from mos_pipeline.stages.budget import Budget
from mos_pipeline.stages.endpoint import (
    CHARS_OF_TOKEN,
    Completion,
    Endpoint,
    FailedError,
    LateError,
    RefusedError,
    UnknownFormatError,
)
from mos_pipeline.stages.gate import Gate
from mos_pipeline.stages.prompts import Prompt, again

__all__ = ["Caller", "UnansweredError"]

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
ANSWER_TOKENS = 400  # expected, for the budget, until the answer tells
KEPT_CHARS = 4000  # of an answer that can't be used, shown to the model once more


class UnansweredError(Exception):
    """There is no answer that can be used, and time or tries are over; the text tells why.

    Attributes:
        reached: whether the endpoint did answer: it refused for good, or what it said can't be used.
        kind: of task, as which it is metered; empty where that is not known.
    """

    def __init__(self, reason: str, *, reached: bool = False, kind: str = "") -> None:
        super().__init__(reason)
        self.reached = reached
        self.kind = kind


class Caller:
    """Asks prompts of one endpoint, many at once. For one event loop."""

    def __init__(self, settings: config.Llm, endpoint: Endpoint, meter: Meter) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._meter = meter
        self._random = random.Random()  # noqa: S311  (jitter)
        self.gate = Gate(settings.max_in_flight)
        self.budget = Budget(settings.max_calls_per_hour, settings.max_tokens_per_hour, settings.processes)

    async def ask(self, kind: str, prompt: Prompt, read: Callable[[dict[str, Any], Mended], T]) -> T:
        """Return what ``read`` makes of the answer; ``kind`` of task is what it is metered as.

        ``read`` raises UnusableError where the answer can't be used; it is asked for once more then. What is too much
        for one answer, and divisible, is not: it would be too much again.

        Raises:
            UnansweredError: there is none.
        """
        trouble = list[str]()  # what went wrong, the latest last
        try:
            async with asyncio.timeout(self._settings.deadline_s) as deadline:
                completion = await self._completion(kind, prompt, deadline, trouble)
                try:
                    return self._read(kind, completion, read)
                except UnusableError as error:
                    if prompt.divisible and isinstance(error, BreaksOffError):
                        raise
                    trouble.append(f"the answer can't be used: {error}")
                    self._meter.of(kind).repairs += 1
                    prompt = again(prompt, completion.text[:KEPT_CHARS], str(error))
                return self._read(kind, await self._completion(kind, prompt, deadline, trouble), read)
        except TimeoutError:
            reason = "; ".join(["", *trouble[-1:]])
            raise UnansweredError(f"no answer within {self._settings.deadline_s:g} s{reason}", kind=kind) from None
        except (RefusedError, UnusableError) as error:
            raise UnansweredError(self._endpoint.shown(error), reached=True, kind=kind) from None

    def _read(self, kind: str, completion: Completion, read: Callable[[dict[str, Any], Mended], T]) -> T:
        if not completion.whole:
            raise BreaksOffError("it breaks off, since it is too long; be briefer")
        mended = Mended()
        answer = read(parsed(completion.text, mended), mended)
        self._meter.of(kind).repairs += mended.yes
        return answer

    async def _completion(self, kind: str, prompt: Prompt, deadline: asyncio.Timeout, trouble: list[str]) -> Completion:
        """Call until there is an answer, or the deadline ends it."""
        form, pause = 0, FIRST_PAUSE_S
        while True:
            try:
                return await self._call(kind, prompt, form, deadline)
            except UnknownFormatError as error:
                trouble.append(str(error))
                form = error.form + 1
            except FailedError as error:
                trouble.append(str(error))
                # Jitter, so that calls that failed together don't come back together.
                wait = (error.pause_s or 0.0) + pause * self._random.uniform(0.5, 1.0)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                await asyncio.sleep(wait)
            self._meter.of(kind).retries += 1

    async def _call(self, kind: str, prompt: Prompt, form: int, deadline: asyncio.Timeout) -> Completion:
        """Wait for its turn, and make one call; formats before ``form`` were refused."""
        expected = sum(len(message["content"]) for message in prompt.messages) // CHARS_OF_TOKEN + ANSWER_TOKENS
        spent = 0
        async with self._turn(expected, deadline) as entered:
            begun = time.monotonic()
            self._meter.of(kind).calls += 1
            try:
                completion = await self._send(prompt, form)
                spent = completion.tokens_in + completion.tokens_out
            except FailedError as error:
                if error.busy:
                    self.gate.refused(entered, error.pause_s or 0.0)
                raise
            finally:
                self.budget.settle(expected, spent)
            self.gate.succeeded()
            self._meter.of(kind).answered(time.monotonic() - begun, completion.tokens_in, completion.tokens_out)
            return completion

    async def _send(self, prompt: Prompt, form: int) -> Completion:
        try:
            return await self._endpoint.complete(prompt, max(form, self._endpoint.form))
        except LateError as error:
            if prompt.divisible:
                raise RefusedError(f"{error}; fewer pages may take less") from None
            raise

    @asynccontextmanager
    async def _turn(self, tokens: int, deadline: asyncio.Timeout) -> AsyncIterator[float]:
        """Take a place among the calls in flight, and hold ``tokens`` of the budget, to be settled inside."""
        while True:
            async with _uncounted(deadline):
                entered = await self.gate.enter()
            try:
                if not self.gate.closed_s:
                    async with _uncounted(deadline):
                        await self.budget.hold(tokens)
                    yield entered
                    return
            finally:
                self.gate.leave()
            await asyncio.sleep(self.gate.closed_s)


@asynccontextmanager
async def _uncounted(deadline: asyncio.Timeout) -> AsyncIterator[None]:
    """Stop the deadline's clock: the wait inside is for the turns of others, not for the endpoint."""
    clock, when = asyncio.get_running_loop().time, deadline.when()
    if when is None:
        yield
        return
    left = when - clock()
    deadline.reschedule(None)
    try:
        yield
    finally:
        deadline.reschedule(clock() + left)
