"""Which scopes are loaded in bulk, and until when; by a clock of the test's."""

from __future__ import annotations

import pytest

from mos_pipeline.config import Config, Llm
from mos_pipeline.engine.bulk import Bulk
from mos_pipeline.memory.state import MemoryState

WAIT_S = 10.0


def test_a_load_goes_on_until_nothing_has_come_for_long_enough() -> None:
    now = [0.0]
    bulk = Bulk(Llm(provider="openai", bulk_wait_s=WAIT_S), lambda: now[0])
    state = MemoryState("0" * 16, Config())
    tom, ann = state.scope("tom", "helper"), state.scope("ann", "helper")
    assert bulk.due is None
    bulk.came(tom)
    now[0] = 4.0
    bulk.came(ann)
    assert bulk.due == WAIT_S
    assert not bulk.overdue
    now[0] = 8.0
    bulk.came(tom)
    assert bulk.due == 4.0 + WAIT_S
    now[0] = 4.0 + WAIT_S
    assert bulk.overdue == [ann.number]
    assert bulk.goes_on(tom) and bulk.goes_on(ann)
    bulk.end(ann)
    assert bulk.due == 8.0 + WAIT_S
    assert not bulk.overdue
    assert bulk.scopes == [tom.number]
    now[0] = 100.0
    assert bulk.overdue == [tom.number]
    bulk.end(tom)
    bulk.end(tom)
    assert bulk.due is None
    assert not bulk.goes_on(tom)


@pytest.mark.parametrize(
    "settings", [Llm(), Llm(provider="openai", bulk_tokens=0), Llm(provider="openai", plan="per_page")]
)
def test_nothing_waits_where_calls_cost_nothing_or_take_one_page(settings: Llm) -> None:
    bulk = Bulk(settings)
    scope = MemoryState("0" * 16, Config()).scope("tom", "helper")
    bulk.came(scope)
    assert bulk.tokens == 0
    assert not bulk.goes_on(scope)
    assert bulk.due is None


def test_a_page_costs_what_is_shown_of_it() -> None:
    bulk = Bulk(Llm(provider="openai", page_chars=100))
    assert bulk.cost("x" * 9, "") == 3
    assert bulk.cost("x" * 5000, "x" * 80) == 25 + 20
