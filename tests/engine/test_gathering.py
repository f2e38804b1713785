"""Units of one turn go out together, each to its role, in their order; a query at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from mos_pipeline.engine.desk import Desk
from mos_pipeline.errors import WorkerError
from mos_pipeline.runtime.ledger import Unit
from mos_pipeline.runtime.supervisor import Outcome


class Post:
    """Stands in for the supervisor: remembers what was submitted, or refuses it."""

    def __init__(self) -> None:
        self.sent = list[tuple[str, list[str]]]()
        self.down = False
        self._ids = itertools.count(1)

    def unit(self, kind: str, _payload: Any, *, urgent: bool = False) -> Unit:
        return Unit(next(self._ids), kind, b"", urgent)

    def submit(self, role: str, units: Sequence[Unit]) -> None:
        if self.down:
            raise WorkerError("it stays down")
        self.sent.append((role, [unit.kind for unit in units]))


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def calls() -> list[Any]:
    return []


@pytest.fixture
def desk(post: Post, calls: list[Any]) -> Desk:
    desk = Desk(calls.append)
    desk.supervisor = post  # type: ignore[assignment]
    return desk


def test_what_is_gathered_is_sent_once_for_each_role_in_its_order(desk: Desk, post: Post) -> None:
    with desk.gathered():
        for role, kind in (("llm", "a"), ("writer", "b"), ("llm", "c"), ("writer", "d")):
            desk.submit(role, kind, None, print)
        assert not post.sent
        desk.submit("embedder", "query", None, print, direct=True)
        assert post.sent.pop() == ("embedder", ["query"])
    assert post.sent == [("llm", ["a", "c"]), ("writer", ["b", "d"])]
    desk.submit("llm", "e", None, print)
    assert post.sent[2:] == [("llm", ["e"])]


def test_a_turn_that_fails_sends_what_it_gave_out_before(desk: Desk, post: Post) -> None:
    with pytest.raises(ZeroDivisionError), desk.gathered():
        desk.submit("llm", "a", None, print)
        raise ZeroDivisionError
    assert post.sent == [("llm", ["a"])]


def test_in_a_long_turn_it_can_be_sent_in_between(desk: Desk, post: Post) -> None:
    with desk.gathered():
        desk.submit("llm", "a", None, print)
        desk.send()
        assert post.sent == [("llm", ["a"])]
        desk.submit("llm", "b", None, print)
    assert post.sent == [("llm", ["a"]), ("llm", ["b"])]


def test_everyone_is_told_where_a_pool_has_failed(desk: Desk, post: Post, calls: list[Any]) -> None:
    post.down, told = True, list[Outcome]()
    with desk.gathered():
        for _ in range(3):
            desk.submit("llm", "a", None, told.append)
    for call in calls:
        call()
    assert [(outcome.unit_id, outcome.fate, outcome.error) for outcome in told] == [
        (number, "down", "it stays down") for number in (1, 2, 3)
    ]
