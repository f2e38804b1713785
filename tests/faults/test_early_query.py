"""A query that comes before the embedder is in service: its vector must not overtake the news of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mos_pipeline.engine.desk import Desk, _Open
from mos_pipeline.runtime.supervisor import Outcome
from tests.faults.common import PATIENCE_S, fill, nothing_left
from tests.support import open_fake


def test_direct_answers_queue_up_until_the_model_is_known() -> None:
    inbox: list[Callable[[], None]] = []
    desk, answers = Desk(inbox.append), list[Outcome]()
    for unit_id, prompt in ((1, False), (2, True)):
        desk._open[unit_id] = _Open(answers.append, direct=True)
        desk.prompt = prompt
        desk.deliver("embedder", Outcome(unit_id, "done"))
    assert [answer.unit_id for answer in answers] == [2]
    inbox.pop()()
    assert [answer.unit_id for answer in answers] == [2, 1]


def test_a_query_asked_at_once_is_answered_by_vectors(tmp_path: Path) -> None:
    with open_fake(tmp_path / "store", llm__processes=1) as memory:
        fill(memory, 20)
        memory.wait_idle(PATIENCE_S)
    for _ in range(2):
        with nothing_left(), open_fake(tmp_path / "store", llm__processes=1) as memory:
            assert not memory.retrieve("ann", "beagle harbour", timeout=PATIENCE_S).degraded
