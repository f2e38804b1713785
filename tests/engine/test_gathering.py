"""Units of one turn go out together, each to its role, in their order; a query at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from mos_pipeline.engine.desk import CLOSED, Desk
from mos_pipeline.errors import InputError, WorkerError
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

    def abandon(self, role: str, unit_id: int) -> None:
        self.sent.append((role, [f"not {unit_id}"]))

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


def test_what_is_asked_is_answered_at_once_piece_by_piece(desk: Desk, post: Post, calls: list[Any]) -> None:
    told = list[Any]()
    with desk.gathered():  # somebody else's turn
        unit_id = desk.ask("llm", "chat", None, told.append, told.append)
        assert post.sent == [("llm", ["chat"])]
        desk.deliver_piece(unit_id, "a")
        desk.deliver_piece(unit_id + 1, "nobody's")
        desk.deliver("llm", Outcome(unit_id, "done", "b"))
        desk.deliver_piece(unit_id, "late")
    assert told == ["a", Outcome(unit_id, "done", "b")]
    assert not calls
    desk.abandon("llm", unit_id)
    assert len(post.sent) == 1


def test_nobody_hears_of_what_was_abandoned(desk: Desk, post: Post) -> None:
    told = list[Any]()
    unit_id = desk.ask("llm", "chat", None, told.append, told.append)
    desk.abandon("llm", unit_id)
    assert post.sent[1:] == [("llm", [f"not {unit_id}"])]
    desk.deliver_piece(unit_id, "a")
    desk.deliver("llm", Outcome(unit_id, "done"))
    assert not told


def test_at_the_end_whoever_asked_is_told_before_and_after(desk: Desk, post: Post, calls: list[Any]) -> None:
    told = list[Outcome]()
    desk.submit("llm", "batch", None, told.append)
    asked = [desk.ask("llm", "chat", None, told.append, print)]
    desk.close()
    asked.append(desk.ask("llm", "chat", None, told.append, print))
    assert told == [Outcome(unit_id, "down", error=CLOSED) for unit_id in asked]
    assert not calls


def test_without_workers_nothing_can_be_asked() -> None:
    with pytest.raises(InputError, match="workers=False"):
        Desk(print).ask("llm", "chat", None, print, print)
