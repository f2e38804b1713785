"""Visits: noted in passing, counted later, written and reckoned with a flush."""

from __future__ import annotations

import pytest

from mos_pipeline.config import Config
from mos_pipeline.engine.events import Event, Visited
from mos_pipeline.engine.visits import Visits
from mos_pipeline.memory.outcomes import Placed
from mos_pipeline.memory.sessions import MidTerm, Session
from mos_pipeline.memory.state import MemoryState, Scope

NOW = 1.7e9


class Office:
    """Stands in for what takes events, and for promotion."""

    def __init__(self) -> None:
        self.events = list[Event]()
        self.considered = list[Scope]()
        self.wakes = 0

    def event(self, event: Event) -> None:
        self.events.append(event)

    def consider(self, scope: Scope) -> None:
        self.considered.append(scope)

    def wake(self) -> None:
        self.wakes += 1


def test_heat_is_put_off_until_a_flush_and_nothing_is_written_before(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = MemoryState("0" * 16, Config()).scope("tom", "assistant")
    for number in range(3):
        scope.mid_term.apply(Placed(number, True, "tea", ["tea"], "2024", [number], -1), NOW)
    scope.mid_term.settle(NOW)
    office, reckoned, heat_of = Office(), list[int](), MidTerm.heat_of

    def counted(self: MidTerm, session: Session, now: float) -> float:
        reckoned.append(session.session_id)
        return heat_of(self, session, now)

    monkeypatch.setattr(MidTerm, "heat_of", counted)
    visits = Visits(office, office, office.wake, lambda: NOW + 60)  # type: ignore[arg-type]
    visits.note(scope, {0, 2})
    visits.note(scope, {2})
    visits.note(scope, set())
    assert (office.wakes, [session.visits for session in scope.mid_term.sessions]) == (1, [0, 0, 0])
    visits.count()
    assert [session.visits for session in scope.mid_term.sessions] == [1, 0, 2]
    assert [session.last_visit for session in scope.mid_term.sessions] == [NOW + 60, NOW, NOW + 60]
    assert office.considered == [scope] * 2
    assert (office.events, reckoned) == ([], [])
    visits.write()
    assert [event.what for event in office.events] == [Visited([[0, 1, NOW + 60, 1], [2, 2, NOW + 60, 2]])]
    assert sorted(reckoned) == [0, 2]
    visits.write()
    assert (len(office.events), len(reckoned)) == (1, 2)
