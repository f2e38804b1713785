"""The LLM pool's process with an endpoint: many units in work at once, each with its tasks in parallel.

One thread and one event loop. A step lets the loop run until there is something to say: a unit is done, another one can
be accepted, or some time has passed, so that the supervisor hears that this process is alive however long the endpoint
takes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from mos_pipeline import config
from mos_pipeline.runtime.meter import Meter
from mos_pipeline.runtime.worker import WITHDRAW, Report
from mos_pipeline.stages.again import AGAIN, answer_again
from mos_pipeline.stages.asking import Asking
from mos_pipeline.stages.caller import Caller, UnansweredError
from mos_pipeline.stages.chat import Answering
from mos_pipeline.stages.endpoint import Endpoint
from mos_pipeline.stages.extractive import Extractive
from mos_pipeline.stages.parts import joined_facts, joined_topics
from mos_pipeline.stages.prompts import PAGES_OF_FACTS, PAGES_OF_TOPICS
from mos_pipeline.stages.tasks import (
    CHAT,
    Batch,
    BatchAsked,
    Knowledge,
    PageText,
    Topic,
    batch_result,
    promotion_result,
    read_promotion,
    unknown_kind,
)

__all__ = ["CallStage"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

COMPLAIN_EVERY_S = 60.0
FEWEST_TOKENS = 1  # of a prompt: is there any budget left?


class CallStage:
    """Answers units by calls to an endpoint, and by extraction where that has no answer. A PatientStage."""

    def __init__(
        self,
        settings: config.Llm,
        long_term: config.LongTerm,
        alive_every_s: float,
        spent: Sequence[Sequence[float]] = (),
    ) -> None:
        """Say every ``alive_every_s`` seconds, at least, what is in work, where anything is pending.

        ``spent`` is what the process before has spent of the hour's budget, see ``Budget.inherit``.
        """
        self._settings = settings
        self._spent = spent
        self._alive_every_s = alive_every_s
        self._extractive = Extractive(settings, long_term)
        self._meter = Meter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._waiting: deque[tuple[int, str, Any]] = deque()
        self._urgent: deque[tuple[int, str, Any]] = deque()
        self._withdrawn: set[int] = set()
        self._in_work: dict[int, asyncio.Task[dict[str, Any]]] = {}
        self._incoming: int | None = None
        self._complained_at = float("-inf")
        self._down_since: float | None = None

    def prepare(self) -> dict[str, Any]:
        """Make the client, and no call yet; return what it asks.

        Raises:
            ConfigError: there is neither a key nor an address.
        """
        self._endpoint = Endpoint(self._settings)
        self._caller = Caller(self._settings, self._endpoint, self._meter)
        self._caller.budget.inherit(self._spent)
        self._asking = Asking(self._settings, self._caller)
        self._answering = Answering(self._settings.model, self._caller)
        self._loop = asyncio.new_event_loop()
        return {"provider": self._settings.provider, "model": self._settings.model}

    def watch(self, descriptor: int | None) -> None:
        """Have steps end when ``descriptor`` can be read: there is something to accept; None: nothing will be."""
        self._incoming = descriptor

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        """Queue a unit of one of the kinds that ``stages/tasks.py`` tells; or (WITHDRAW) have one given up."""
        if kind == WITHDRAW:
            self._withdrawn.add(unit_id)
        else:
            (self._urgent if kind == CHAT else self._waiting).append((unit_id, kind, payload))

    @property
    def pending(self) -> bool:
        """Is there a unit that waits, or is in work?"""
        return bool(self._urgent or self._waiting or self._in_work)

    def step(self, report: Report) -> None:
        """Take units into work, wait until there is something to say, and say it; one that raises fails alone."""
        if self._loop is None:
            raise RuntimeError("step() came before prepare(); call it first")
        self._loop.run_until_complete(self._until_news(report))
        done = [unit_id for unit_id, task in self._in_work.items() if task.done()]
        report.metered(self._meter.take())
        self._tell_of_endpoint(report)
        for unit_id in done:
            _hand_in(unit_id, self._in_work.pop(unit_id), report)
        if self.pending:
            report.started(list(self._in_work))

    def _tell_of_endpoint(self, report: Report) -> None:
        """Report it where the endpoint has gone down, or has come back."""
        since = self._caller.breaker.down_since
        if since != self._down_since:
            self._down_since = since
            report.endpoint(since)
            text = "the endpoint of %s is back"
            if since is not None:
                text = "the endpoint of %s is down: extractive answers stand in at once, until it answers again"
            logger.warning(text, self._settings.model, extra={"event": "llm-endpoint"})

    def close(self) -> None:
        """Drop what was accepted, calls in flight included."""
        self._urgent.clear()
        self._waiting.clear()
        if self._loop is not None:
            self._loop.run_until_complete(self._end())
            self._loop.close()
            self._loop = None

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # those included whose unit has failed meanwhile
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._in_work.clear()
        await self._endpoint.close()

    async def _until_news(self, report: Report) -> None:
        """Begin what may begin; return when a unit is done, another can be accepted, or it is time to say so."""
        self._begin(report)
        self._give_up()
        self._news.clear()
        if any(task.done() for task in self._in_work.values()):
            return
        loop = asyncio.get_running_loop()
        if self._incoming is not None:
            loop.add_reader(self._incoming, self._news.set)
        try:
            async with asyncio.timeout(self._longest_s()):
                await self._news.wait()
        except TimeoutError:
            pass
        finally:
            if self._incoming is not None:
                loop.remove_reader(self._incoming)

    def _longest_s(self) -> float:
        wait = self._caller.budget.wait_s(FEWEST_TOKENS) if self._waiting else 0.0
        return min(self._alive_every_s, wait or self._alive_every_s)

    def _begin(self, report: Report) -> None:
        """Take units into work: as many as there may be calls, and none that would only wait for the budget.

        Somebody waits for the urgent ones: they begin at once, and wait at the gate, before all others.
        """
        begun = False
        while self._urgent or (self._waiting and self._may_begin()):
            unit_id, kind, payload = (self._urgent or self._waiting).popleft()
            answer = self._answer(kind, payload, partial(report.piece, unit_id))
            task = self._in_work[unit_id] = asyncio.create_task(answer, name=kind)
            task.add_done_callback(lambda _: self._news.set())
            begun = True
        if begun:
            report.started(list(self._in_work))

    def _give_up(self) -> None:
        """Cancel what nobody waits for any more, its calls included; those that are done already are as they are."""
        while self._withdrawn:
            task = self._in_work.get(self._withdrawn.pop())
            if task is not None:
                task.cancel()

    def _may_begin(self) -> bool:
        return len(self._in_work) < int(self._caller.gate.limit) and not self._caller.budget.wait_s(FEWEST_TOKENS)

    async def _answer(self, kind: str, payload: Any, tell: Callable[[str], None]) -> dict[str, Any]:
        if kind == CHAT:
            return await self._answering.answer(payload, tell)
        owed = list[str]()
        if kind == "batch":
            batch, previous, homeless = BatchAsked.read(payload)
            continuity, topics = await asyncio.gather(
                self._task(
                    "continuity",
                    self._asking.continuity(batch, previous),
                    lambda: self._extractive.continuity(batch, previous),
                    owed,
                ),
                self._topics(homeless, owed),
            )
            return batch_result(continuity, topics, sorted(owed))
        if kind == "promotion":
            profile, pages = read_promotion(payload)
            new, known = await asyncio.gather(
                self._task(
                    "profile",
                    self._asking.profile(profile, pages),
                    lambda: self._extractive.profile(profile, pages),
                    owed,
                ),
                self._task("knowledge", self._asking.knowledge(pages), lambda: self._own_knowledge(pages), owed),
            )
            return promotion_result(new, known, sorted(owed))
        if kind in AGAIN:
            self._caller.breaker.try_soon()
            return await answer_again(self._asking, kind, payload)
        raise unknown_kind(kind)

    async def _topics(self, batch: Batch, owed: list[str]) -> list[Topic]:
        if not batch.pages:
            return []
        return await self._task("topics", self._asking.topics(batch), lambda: self._own_topics(batch), owed)

    def _own_topics(self, batch: Batch) -> list[Topic]:
        """Extract topics of some pages at a time: of any number it makes two at the most."""
        starts = range(0, len(batch.pages), PAGES_OF_TOPICS)
        parts = [slice(start, start + PAGES_OF_TOPICS) for start in starts]
        cut = [Batch(batch.pages[part], batch.vectors[part]) for part in parts]
        return joined_topics(zip(starts, map(self._extractive.topics, cut), strict=True))

    def _own_knowledge(self, pages: list[PageText]) -> Knowledge:
        """Extract facts of some pages at a time: of any number it takes but a few."""
        starts = range(0, len(pages), PAGES_OF_FACTS)
        cut = [pages[start : start + PAGES_OF_FACTS] for start in starts]
        return joined_facts(zip(starts, map(self._extractive.knowledge, cut), strict=True))

    async def _task(self, task: str, asked: Coroutine[Any, Any, T], instead: Callable[[], T], owed: list[str]) -> T:
        """Return what is ``asked``; where there is no answer, what stands in for it, and note the task as owed."""
        try:
            return await asked
        except UnansweredError as error:
            self._meter.of(error.kind or task).fallbacks += 1
            self._complain(task, error)
            owed.append(task)
            return instead()

    def _complain(self, task: str, error: UnansweredError) -> None:
        """Log it, but not every time: an endpoint that is away fails everything."""
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            text = (
                "no answer from %s for the task %s (%s); the extractive one stands in, here and where it happens again"
            )
            logger.warning(text, self._settings.model, task, error, extra={"event": "llm-unanswered"})


def _hand_in(unit_id: int, task: asyncio.Task[dict[str, Any]], report: Report) -> None:
    if task.cancelled():
        report.failed(unit_id, "given up: nobody waits for it any more")
        return
    error = task.exception()
    if error is None:
        report.done(unit_id, task.result())
        return
    if isinstance(error, MemoryError) or not isinstance(error, Exception):
        raise error  # no fault of the unit's: this process ends, and the next one begins with all the memory there is
    logger.error("unit %d (%s) failed", unit_id, task.get_name(), exc_info=error)
    report.failed(unit_id, f"{task.get_name()}: {type(error).__name__}: {error}")
