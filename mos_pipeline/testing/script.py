"""What is asked of the fake server, and the script of how it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mos_pipeline.testing.replies import Reply

__all__ = ["Request", "Script"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to ``/v1/chat/completions``.

    Attributes:
        number: from 1, in the order of arrival.
        at: when it came, in monotonic seconds.
        headers: HTTP headers, their names in lower case.
        body: the decoded JSON.
        in_flight: requests that were not answered then, this one included.
    """

    number: int
    at: float
    headers: Mapping[str, str]
    body: dict[str, Any]
    in_flight: int

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation."""
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def asked(self) -> dict[str, Any]:
        """The JSON object in the first message of the user, as the library's prompts have it; else empty."""
        for message in self.messages:
            if message.get("role") == "user":
                try:
                    found = json.loads(message["content"])
                except (ValueError, TypeError, KeyError):
                    return {}
                return found if isinstance(found, dict) else {}
        return {}

    @property
    def task(self) -> str:
        """The task that one of the library's prompts asks for; else empty."""
        return str(self.asked.get("task", ""))


@dataclass(slots=True)
class _Rule:
    reply: Reply
    left: int | None
    task: str | None


class Script:
    """How requests are answered: by the first rule for them that has times left, else sensibly. Thread-safe.

    Attributes:
        latency_s: seconds before every answer.
    """

    def __init__(self) -> None:
        self.latency_s = 0.0
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()

    def add(self, reply: Reply, *, times: int | None = 1, task: str | None = None) -> None:
        """Answer the next ``times`` requests so, all of them where None; only those for ``task`` where one is named."""
        with self._lock:
            self._rules.append(_Rule(reply, times, task))

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._rules.clear()

    def reply(self, request: Request) -> Reply:
        """Return how to answer, and count it."""
        with self._lock:
            for rule in self._rules:
                if rule.left != 0 and rule.task in (None, request.task):
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.reply
        return Reply()
