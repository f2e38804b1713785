"""Answers by the endpoint: asked for in the caller's thread, written in a process of the LLM pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from mos_pipeline.config import Config
from mos_pipeline.engine.batches import LLM
from mos_pipeline.engine.desk import CLOSED, Desk
from mos_pipeline.errors import ClosedError, ConfigError, DeadlineError, WorkerError
from mos_pipeline.runtime.supervisor import Outcome
from mos_pipeline.stages.tasks import CHAT

__all__ = ["Chat"]

GRACE_S = 2.0  # the worker keeps the same deadline, and tells more of what was in the way
NOTHING_ADDED = "nothing was added to memory"


class Chat:
    """Asks the endpoint for answers; from any thread."""

    def __init__(self, config: Config, desk: Callable[[], Desk | None]) -> None:
        """``desk`` returns who gives work to the pool; None after the end."""
        self._config = config
        self._desk = desk

    def pieces(
        self, messages: Sequence[Mapping[str, str]], temperature: float, max_tokens: int, *, stream: bool
    ) -> Iterator[str]:
        """Yield the answer to chat messages: piece by piece, or whole.

        It is asked for with the first ``next``. Closed before its end, it is given up, the call to the endpoint too.

        Raises:
            WorkerError: there is none; the text tells why.
            DeadlineError: it did not come within ``response.deadline_s``.
            ConfigError: there is neither a key nor an address.
            InputError: the pipeline was opened without workers.
            ClosedError: it was closed meanwhile.
        """
        desk = self._desk()
        if desk is None:
            raise self._closed()
        until = time.monotonic() + self._config.response.deadline_s
        payload = {
            "messages": [dict(message) for message in messages],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "stream": stream,
            "until": until,
        }
        news: SimpleQueue[str | Outcome] = SimpleQueue()
        unit_id = desk.ask(LLM, CHAT, payload, news.put, news.put)
        try:
            while isinstance(item := self._next(news, until + GRACE_S), str):
                yield item
            if rest := self._text(item):
                yield rest
        finally:
            desk.abandon(LLM, unit_id)

    def _next(self, news: SimpleQueue[str | Outcome], until: float) -> str | Outcome:
        try:
            return news.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            raise DeadlineError(
                f"no answer within {self._config.response.deadline_s:g} s (response.deadline_s): no process of the LLM "
                f"pool has told of one, see stats(); {NOTHING_ADDED}"
            ) from None

    def _text(self, outcome: Outcome) -> str:
        """Return what is left of the answer at its end.

        Raises:
            MosError: there is none.
        """
        match outcome.fate:
            case "done":
                return self._told(outcome.result)
            case "killed":
                raise WorkerError(
                    f"the process that asked the endpoint died over this question again and again, last by "
                    f"{outcome.error}; {NOTHING_ADDED}; ask in other words"
                )
            case "broken":
                raise WorkerError(
                    f"the process that asked the endpoint died ({outcome.error}) when a part of the answer had been "
                    f"handed out; {NOTHING_ADDED}; ask again"
                )
            case "refused":
                raise WorkerError(f"the question could not be asked ({outcome.error}); {NOTHING_ADDED}")
        if outcome.error == CLOSED:
            raise self._closed()
        kind, _, text = outcome.error.partition(": ")
        raise ConfigError(text) if kind == ConfigError.__name__ else WorkerError(f"{outcome.error}; {NOTHING_ADDED}")

    def _told(self, result: Mapping[str, Any]) -> str:
        if "error" in result:
            kind = DeadlineError if result["late"] else WorkerError
            raise kind(f"{result['error']}; {NOTHING_ADDED}")
        return str(result["text"])

    def _closed(self) -> ClosedError:
        return ClosedError(f"{CLOSED} before the answer was whole; {NOTHING_ADDED}; open it again, and ask again")
