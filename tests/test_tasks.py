from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mos_pipeline.config import Llm, LongTerm
from mos_pipeline.messages import decode, encode
from mos_pipeline.runtime.worker import Stage
from mos_pipeline.stages import tasks
from mos_pipeline.stages.tasks import Batch, Continuity, Knowledge, PageFact, PageText, Previous, TaskStage, Topic


class Reports:
    """Writes down what a stage reports, in order, as it would cross the pipe."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def started(self, unit_ids: Sequence[int]) -> None:
        self.all.append(decode(encode(["started", list(unit_ids)])))

    def piece(self, unit_id: int, piece: Any) -> None:
        raise AssertionError("it answers whole")

    def done(self, unit_id: int, result: Any) -> None:
        self.all.append(decode(encode(["done", unit_id, result])))

    def failed(self, unit_id: int, message: str) -> None:
        self.all.append(decode(encode(["failed", unit_id, message])))

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        raise AssertionError("it calls no model")

    def endpoint(self, down_since: float | None) -> None:
        raise AssertionError("it asks no endpoint")


class Scripted:
    """A provider that remembers what it was asked and fails where told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Batch, Previous | None]] = []
        self.error: Exception | None = None

    def continuity(self, batch: Batch, previous: Previous | None) -> Continuity:
        self.asked.append((batch, previous))
        if self.error:
            raise self.error
        return Continuity([False] * len(batch.pages), ["overview"] * len(batch.pages))

    def topics(self, batch: Batch) -> list[Topic]:
        return [Topic("theme", ["word"], "content", list(range(len(batch.pages))))]

    def profile(self, profile: str, pages: list[PageText]) -> str:
        return f"{profile} + {' + '.join(page.user_input for page in pages)}"

    def knowledge(self, pages: list[PageText]) -> Knowledge:
        return Knowledge([PageFact(page.timestamp, i) for i, page in enumerate(pages)], [PageFact("assistant", 0)])


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    scripted = Scripted()
    monkeypatch.setattr(tasks, "_make_provider", lambda *settings: scripted)
    return scripted


def payload(vectors: Any = ((1, 0), (0, 1)), previous: Any = None) -> Any:
    rows = np.array(vectors, np.float16)
    pages = [[f"question {i}", f"answer {i}", "2024-01-01 00:00:00"] for i in range(len(rows))]
    homeless = list(range(len(rows)))
    message = {"pages": pages, "vectors": rows.tobytes(), "dimension": rows.shape[1], "previous": previous}
    return decode(encode({**message, "homeless": homeless}))


def promotion(*pages: list[str], profile: str = "") -> Any:
    return decode(encode({"profile": profile, "pages": pages}))


def prepared() -> TaskStage:
    stage = TaskStage(Llm())
    stage.prepare()
    return stage


def run(stage: TaskStage) -> list[Any]:
    reports = Reports()
    while stage.pending:
        stage.step(reports)
    return reports.all


def test_it_is_a_stage_that_tells_who_answers() -> None:
    stage: Stage = TaskStage(Llm())
    assert stage.prepare() == {"provider": "extractive"}
    assert not stage.pending
    stage.close()


def test_a_step_answers_one_unit_and_says_first_that_it_begins(provider: Scripted) -> None:
    stage, reports = prepared(), Reports()
    stage.accept(7, "batch", payload())
    stage.accept(8, "promotion", promotion(["one", "a", "10:00"]))
    stage.step(reports)
    topic = {"theme": "theme", "keywords": ["word"], "content": "content", "pages": [0, 1]}
    answer = {"continues": [False, False], "overviews": ["overview", "overview"], "topics": [topic], "owed": []}
    assert reports.all == [["started", [7]], ["done", 7, answer]]
    assert stage.pending
    stage.step(reports)
    assert [report[0] for report in reports.all[2:]] == ["started", "done"]
    assert not stage.pending


@pytest.mark.parametrize(("homeless", "asked"), [([0, 2], [(0, 2)]), ([], [])])
def test_topics_are_asked_for_of_the_homeless_pages_alone(
    provider: Scripted, monkeypatch: pytest.MonkeyPatch, homeless: list[int], asked: list[tuple[int, ...]]
) -> None:
    stage, seen, topics = prepared(), list[tuple[int, ...]](), provider.topics

    def watched(batch: Batch) -> list[Topic]:
        assert [page.user_input for page in batch.pages] == [f"question {int(row[0])}" for row in batch.vectors]
        seen.append(tuple(int(row[0]) for row in batch.vectors))
        return topics(batch)

    monkeypatch.setattr(provider, "topics", watched)
    stage.accept(1, "batch", payload(((0, 1), (1, 1), (2, 1))) | {"homeless": homeless})
    _, (_, _, answer) = run(stage)
    assert seen == asked
    assert len(answer["continues"]) == 3
    assert len(answer["topics"]) == len(asked)


def test_the_provider_gets_texts_and_rows(provider: Scripted) -> None:
    stage = prepared()
    before = {"page": ["q", "a", "t"], "vector": np.array([0.5, 0.25], np.float16).tobytes(), "overview": "so far"}
    stage.accept(1, "batch", payload(((1, 2), (3, 4), (5, 6)), before))
    run(stage)
    batch, previous = provider.asked[0]
    assert [page.user_input for page in batch.pages] == ["question 0", "question 1", "question 2"]
    assert batch.pages[0].agent_response == "answer 0"
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert previous is not None
    assert (previous.page.user_input, previous.overview) == ("q", "so far")
    assert previous.vector.tolist() == [0.5, 0.25]


def test_a_unit_that_raises_fails_alone(provider: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    stage = prepared()
    provider.error = ZeroDivisionError("nothing to divide")
    stage.accept(1, "batch", payload())
    stage.accept(2, "promotion", promotion(["one", "a", "10:00"]))
    with caplog.at_level(logging.ERROR):
        reports = run(stage)
    assert reports[1] == ["failed", 1, "batch: ZeroDivisionError: nothing to divide"]
    assert reports[3][:2] == ["done", 2]
    record = caplog.records[0]
    assert record.name == "mos_pipeline.stages.tasks"
    assert record.exc_info is not None


def test_profile_and_knowledge_need_no_vectors(provider: Scripted) -> None:
    stage = prepared()
    stage.accept(1, "promotion", promotion(["one", "a", "10:00"], ["two", "b", "11:00"], profile="old"))
    user = [{"text": "10:00", "page": 0}, {"text": "11:00", "page": 1}]
    answer = {"profile": "old + one + two", "user": user, "assistant": [{"text": "assistant", "page": 0}], "owed": []}
    assert run(stage)[1] == ["done", 1, answer]


@pytest.mark.parametrize(
    ("kind", "broken", "reason"),
    [
        ("promotion", {"profile": "", "pages": [["only one side"]]}, "TypeError"),
        ("promotion", {}, "KeyError"),
        ("promotion", {"pages": None}, "TypeError"),
        ("poem", {}, "unknown kind of unit 'poem'"),
        ("batch", {"dimension": 3}, "ValueError"),
        ("batch", {"vectors": b"\0"}, "ValueError"),
        ("batch", {"homeless": [0, 5]}, "IndexError"),
        ("batch", {"pages": [["only one side"]]}, "TypeError"),
        ("batch", {"previous": {"page": ["q", "a", "t"], "vector": b"", "overview": ""}}, "ValueError"),
    ],
)
def test_what_cannot_be_read_is_refused(kind: str, broken: dict[str, Any], reason: str) -> None:
    stage = prepared()
    stage.accept(3, kind, payload() | broken)
    started, failed = run(stage)
    assert started == ["started", [3]]
    assert failed[:2] == ["failed", 3]
    assert reason in failed[2]


def test_work_before_prepare_is_refused() -> None:
    stage = TaskStage(Llm())
    stage.accept(1, "batch", payload())
    assert "prepare()" in run(stage)[1][2]


def test_close_drops_what_waits(provider: Scripted) -> None:
    stage = prepared()
    stage.accept(1, "batch", payload())
    stage.close()
    assert not stage.pending


def test_the_default_provider_answers_all_kinds() -> None:
    stage = prepared()
    stage.accept(1, "batch", payload())
    stage.accept(2, "promotion", promotion(["I adopted a beagle named Rex.", "", "2024-05-01"]))
    _, (_, _, batch), _, (_, _, promoted) = run(stage)
    assert batch["continues"] == [False, False]
    assert [topic["pages"] for topic in batch["topics"]] == [[0], [1]]
    assert promoted["user"] == [{"text": "I adopted a beagle named Rex.", "page": 0}]


def test_the_default_provider_keeps_to_the_settings_of_long_term_memory() -> None:
    stage = TaskStage(Llm(), LongTerm(facts_per_promotion=1, profile_lines=1))
    stage.prepare()
    pages = [["I adopted a beagle named Rex.", "I live here.", "2024-05-01"]] * 2
    pages.append(["I have two brothers in Lisbon.", "I work in Ghent.", "2024-05-02"])
    stage.accept(1, "promotion", promotion(*pages))
    assert run(stage)[1][2] == {
        "profile": "Is and has\n- I have two brothers in Lisbon. (2024-05-02)",
        "user": [{"text": "I have two brothers in Lisbon.", "page": 2}],
        "assistant": [{"text": "I work in Ghent.", "page": 2}],
        "owed": [],
    }


def test_batches_of_one_unit_are_answered_as_by_themselves() -> None:
    stage = prepared()
    first, second = payload(((1, 0), (1, 0.1))), payload(((1, 0.2), (0, 1)))
    stage.accept(1, "batch", first)
    _, (_, _, told) = run(stage)
    before = {"page": first["pages"][-1], "vector": first["vectors"][-4:], "overview": told["overviews"][-1]}
    stage.accept(2, "batch", second | {"previous": before})
    _, (_, _, then) = run(stage)
    assert then["continues"][0]
    stage.accept(3, "batches", [first, second | {"previous": True}])
    _, (_, _, together) = run(stage)
    assert together == [told, then]
    stage.accept(4, "batches", [first, second])
    _, (_, _, apart) = run(stage)
    assert not apart[1]["continues"][0]
