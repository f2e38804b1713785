"""Asking a model until it has answered or its time is over: the one layer of retries.

A prompt waits for its turn (a place in the gate, the hour's budget) as long as it takes. From then on it has
``llm.deadline_s`` for all its calls and the pauses between them: as long as the endpoint asks for, where it does, and
some more, jittered and doubling. Where an answer can't be used, the model is told why and asked once more. While an
endpoint is down (``stages/breaker.py``), no prompt waits for it but one that probes.

Somebody waits for the answer to a chat: it goes before prompts, and has one deadline for everything. It is asked
whether the endpoint is down or not; but if that is, and does not answer it either, nobody has to wait for more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from mos_pipeline import config
from mos_pipeline.runtime.meter import Meter
from mos_pipeline.stages.answers import BreaksOffError, Mended, UnusableError, parsed
from mos_pipeline.stages.breaker import Breaker
from mos_pipeline.stages.budget import Budget
from mos_pipeline.stages.completion import Chat, Completion, about_tokens
from mos_pipeline.stages.endpoint import (
    BrokenOffError,
    Endpoint,
    FailedError,
    LateError,
    RefusedError,
    UnknownFormatError,
)
from mos_pipeline.stages.gate import Gate
from mos_pipeline.stages.prompts import Prompt, again

__all__ = ["Caller", "DownError", "UnansweredError"]

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
ANSWER_TOKENS = 400  # expected, for the budget, until the answer tells
TURN = "its turn: other calls are in flight (llm.max_in_flight)"
BUDGET = "the next hour: llm.max_calls_per_hour or llm.max_tokens_per_hour is used up"
ENDPOINT = "the endpoint"
PAUSE = "the end of a pause: the endpoint has had too many calls"
DOWN = "the endpoint has not answered for a whole prompt's time"
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


class _SlowError(RefusedError):
    """The endpoint takes too long for so many pages; fewer may be had in time."""


class DownError(Exception):
    """The endpoint has not been heard of for so long that nobody waits for it now."""


@dataclass(slots=True)
class _Tries:
    """What became of calls: when the first began, and what went wrong, the latest last."""

    since: float | None = None
    trouble: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Call:
    """What is sent until there is an answer.

    Attributes:
        kind: of task, as which it is metered.
        tokens: about how many it takes, the answer's included.
        send: makes one call, in none of the ways before the one given.
        tries: what became of it so far.
        urgent: whether it goes before others, and the wait for its turn counts.
        waits_for: what, now.
    """

    kind: str
    tokens: int
    send: Callable[[int], Awaitable[Completion]]
    tries: _Tries
    urgent: bool = False
    waits_for: str = ""


class Caller:
    """Asks prompts of one endpoint, many at once. For one event loop."""

    def __init__(self, settings: config.Llm, endpoint: Endpoint, meter: Meter) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._meter = meter
        self._random = random.Random()  # noqa: S311  (jitter)
        self.gate = Gate(settings.max_in_flight)
        self.breaker = Breaker()
        self.budget = Budget(settings.max_calls_per_hour, settings.max_tokens_per_hour, settings.processes)

    async def ask(self, kind: str, prompt: Prompt, read: Callable[[dict[str, Any], Mended], T]) -> T:
        """Return what ``read`` makes of the answer; ``kind`` of task is what it is metered as.

        ``read`` raises UnusableError where the answer can't be used; it is asked for once more then. What is too much
        for one answer, and divisible, is not: it would be too much again.

        Raises:
            UnansweredError: there is none.
        """
        tries, time_s = _Tries(), self._time_s(prompt)
        try:
            async with asyncio.timeout(time_s) as deadline:
                completion = await self._completion(self._of(kind, prompt, tries), deadline)
                try:
                    return self._read(kind, completion, read)
                except UnusableError as error:
                    if prompt.divisible and isinstance(error, BreaksOffError):
                        raise
                    tries.trouble.append(f"the answer can't be used: {error}")
                    self._meter.of(kind).repairs += 1
                    prompt = again(prompt, completion.text[:KEPT_CHARS], str(error))
                return self._read(kind, await self._completion(self._of(kind, prompt, tries), deadline), read)
        except TimeoutError:
            if tries.since is not None:
                self.breaker.gave_up(tries.since)
            reason = "; ".join(["", *tries.trouble[-1:]])
            raise UnansweredError(f"no answer within {time_s:g} s{reason}", kind=kind) from None
        except _SlowError as error:
            if tries.since is not None:
                self.breaker.late(tries.since)
            raise UnansweredError(str(error), reached=True, kind=kind) from None
        except (RefusedError, UnusableError) as error:
            raise UnansweredError(self._endpoint.shown(error), reached=True, kind=kind) from None
        except DownError as error:
            raise UnansweredError(str(error), kind=kind) from None

    async def chat(self, kind: str, chat: Chat, tell: Callable[[str], None], until: float) -> Completion:
        """Return the answer to a chat that has come by ``until``, monotonic seconds.

        ``tell`` is given pieces where they are wanted; after the first one nothing is asked again.

        Where the endpoint is down, and does not answer this either, nobody waits for the rest of the time.

        Raises:
            UnansweredError: time is over.
            RefusedError, BrokenOffError: as from ``Endpoint.chat``.
            DownError: the endpoint is down.
        """
        tokens = chat.tokens + ANSWER_TOKENS
        call = _Call(kind, tokens, lambda way: self._endpoint.chat(chat, way, tell), _Tries(), urgent=True)
        try:
            async with asyncio.timeout_at(until) as deadline:  # the loop's clock is the monotonic one
                return await self._completion(call, deadline)
        except TimeoutError:
            reason = "; ".join(["", *call.tries.trouble[-1:]])
            raise UnansweredError(f"time was over while it waited for {call.waits_for}{reason}") from None

    def _time_s(self, prompt: Prompt) -> float:
        """Return how long a prompt may try; the smallest part of one that has waited in vain: one call at least."""
        most = self._settings.deadline_s
        if prompt.divisible:
            return most
        return max(min(self._settings.timeout_s, most), most - self.breaker.silence_s)

    def _of(self, kind: str, prompt: Prompt, tries: _Tries) -> _Call:
        tokens = about_tokens(prompt.messages) + ANSWER_TOKENS
        return _Call(kind, tokens, partial(self._complete, prompt), tries)

    def _read(self, kind: str, completion: Completion, read: Callable[[dict[str, Any], Mended], T]) -> T:
        if not completion.whole:
            raise BreaksOffError("it breaks off, since it is too long; be briefer")
        mended = Mended()
        answer = read(parsed(completion.text, mended), mended)
        self._meter.of(kind).repairs += mended.yes
        return answer

    async def _completion(self, call: _Call, deadline: asyncio.Timeout) -> Completion:
        """Call until there is an answer, or the deadline ends it."""
        form, pause = 0, FIRST_PAUSE_S
        while True:
            try:
                return await self._call(call, form, deadline)
            except UnknownFormatError as error:
                call.tries.trouble.append(str(error))
                form = error.form + 1
            except FailedError as error:
                call.tries.trouble.append(str(error))
                # Jitter, so that calls that failed together don't come back together.
                wait = (error.pause_s or 0.0) + pause * self._random.uniform(0.5, 1.0)
                if call.urgent and self.breaker.down_since is not None:
                    raise DownError(f"{DOWN}, nor this question: {error}") from None
                if call.urgent:
                    _check_time(deadline, wait)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                await self._rest(wait)
            self._meter.of(call.kind).retries += 1

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than until it turns out that the endpoint is down."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.breaker.opened.wait()

    async def _call(self, call: _Call, form: int, deadline: asyncio.Timeout) -> Completion:
        """Wait for its turn, and make one call; formats before ``form`` were refused."""
        asked = call.tokens - ANSWER_TOKENS
        async with self._turn(call, deadline) as entered:
            call.waits_for = ENDPOINT
            begun = time.monotonic()
            call.tries.since = self.breaker.now() if call.tries.since is None else call.tries.since
            self._meter.of(call.kind).calls += 1
            probes, lost = self.breaker.begin(), asked  # unless it turns out that it was not read
            spent = 0
            try:
                completion = await call.send(form)
                self.breaker.heard()
                spent, lost = completion.tokens_in + completion.tokens_out, 0
            except FailedError as error:
                lost = asked if error.read else 0
                if not error.down:
                    self.breaker.heard()
                if error.busy:
                    self.gate.refused(entered, error.pause_s or 0.0)
                raise
            except _SlowError:
                raise
            except BrokenOffError:
                self.breaker.heard()
                raise
            except (UnknownFormatError, RefusedError):
                lost = 0
                self.breaker.heard()
                raise
            finally:
                self.budget.settle(call.tokens, spent + lost)
                self._meter.of(call.kind).tokens_lost += lost
                if probes:
                    self.breaker.end_probe()
            self.gate.succeeded()
            self._meter.of(call.kind).answered(time.monotonic() - begun, completion.tokens_in, completion.tokens_out)
            return completion

    async def _complete(self, prompt: Prompt, form: int) -> Completion:
        try:
            return await self._endpoint.complete(prompt, form)
        except LateError as error:
            if prompt.divisible:
                raise _SlowError(f"{error}; fewer pages may take less") from None
            raise

    @asynccontextmanager
    async def _turn(self, call: _Call, deadline: asyncio.Timeout) -> AsyncIterator[float]:
        """Take a place among the calls in flight, and hold the call's tokens of the budget, to be settled inside."""
        wait = nullcontext if call.urgent else partial(_uncounted, deadline)
        while self._admits(call):
            call.waits_for = TURN
            async with wait():
                entered = await self.gate.enter(urgent=call.urgent)
            try:
                if not self.gate.closed_s and self._admits(call):
                    call.waits_for = BUDGET
                    async with wait():
                        await self.budget.hold(call.tokens)
                    yield entered
                    return
            finally:
                self.gate.leave()
            call.waits_for = PAUSE
            if call.urgent:
                _check_time(deadline, self.gate.closed_s)
            await asyncio.sleep(self.gate.closed_s)
        raise DownError(f"{DOWN}; it is asked again now and then")

    def _admits(self, call: _Call) -> bool:
        """Return whether the endpoint is asked now, though it may be down."""
        return call.urgent or self.breaker.admits


def _check_time(deadline: asyncio.Timeout, wait_s: float) -> None:
    """Raise TimeoutError where the deadline is no later than in so many seconds: who waits is told now and not then."""
    when = deadline.when()
    if when is not None and asyncio.get_running_loop().time() + wait_s >= when:
        raise TimeoutError


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
