"""Turns of a dialogue as pages: a user's turn opens one, the assistant's turns that follow complete it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mos_pipeline.ingest.records import Draft

__all__ = ["Turn", "pages_of_turns"]


class Turn(NamedTuple):
    """What one of the two said.

    Attributes:
        of_user: whether the user did, or the assistant.
        other: how many parts that are no text it has, by their kind.
    """

    of_user: bool
    text: str
    timestamp: str | None = None
    other: dict[str, int] = {}  # noqa: RUF012 - never changed


@dataclass(slots=True)
class _Exchange:
    said: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    timestamp: str | None = None
    other: Counter[str] = field(default_factory=Counter)


def pages_of_turns(turns: Iterable[Turn], user_id: str, metadata: dict[str, Any], system: list[str]) -> Iterator[Draft]:
    """Yield the pages of a conversation; no turn is lost, and a side may be empty.

    Args:
        turns: in their order.
        user_id: whose they are.
        metadata: of every page.
        system: what the system told the assistant: metadata of the first page.
    """
    first = {"system": "\n\n".join(system)} if system else {}
    for exchange in _exchanges(turns):
        other = {"other_parts": dict(sorted(exchange.other.items()))} if exchange.other else {}
        sides = "\n\n".join(exchange.said), "\n\n".join(exchange.answered)
        yield Draft(user_id, None, *sides, exchange.timestamp, {**metadata, **first, **other} or None, None)
        first = {}


def _exchanges(turns: Iterable[Turn]) -> Iterator[_Exchange]:
    exchange: _Exchange | None = None
    for turn in turns:
        if exchange is not None and turn.of_user:
            yield exchange
            exchange = None
        if exchange is None:
            exchange = _Exchange(timestamp=turn.timestamp)
        (exchange.said if turn.of_user else exchange.answered).append(turn.text)
        exchange.other.update(turn.other)
        exchange.timestamp = exchange.timestamp or turn.timestamp
    if exchange is not None:
        yield exchange
