from __future__ import annotations

from datetime import UTC, datetime

from mos_pipeline.memory.selection import MOST_REFUSED, TOKENS_A_PAGE, Budget, Filter, estimated_tokens


def test_a_token_is_taken_for_four_characters() -> None:
    assert [estimated_tokens("x" * length) for length in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_budget_counts_pages_and_each_overview_once() -> None:
    budget = Budget(2 * TOKENS_A_PAGE + 1 + 1 + 5)
    assert budget.takes(("four", ""), "x" * 20)
    assert not budget.takes(("four", ""), "y" * 20)
    assert budget.takes(("four", ""), "x" * 20)
    assert budget.spent


def test_a_budget_that_nothing_fits_any_more_is_spent_before_all_was_offered() -> None:
    budget = Budget(TOKENS_A_PAGE + 50)
    for _ in range(MOST_REFUSED):
        assert not budget.spent
        assert not budget.takes(("x" * 400, ""), "")
    assert budget.spent
    assert not Budget(None).spent


def test_a_page_whose_time_can_not_be_read_is_in_no_span_of_time() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert Filter().empty
    assert Filter().passes("some day", {})
    for wanted in (Filter(since=noon), Filter(until=noon)):
        assert not wanted.passes("some day", {})
        assert wanted.passes("2026-03-01 12:00:00", {})
    assert not Filter(since=noon).passes("2026-03-01 11:59:59", {})
    assert not Filter(until=noon).passes("2026-03-01 12:00:01", {})
