"""Against a real server: llama.cpp with a small model, whose answers are poor. What must hold holds with those, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline
from tests.faults.common import PATIENCE_S
from tests.llm.real_server import real_server
from tests.support import all_pages, open_fake

pytestmark = pytest.mark.slow

NEVER = 3600.0
ROUNDS = 10
SAID = (
    ("I adopted a beagle named Rex.", "Lovely!"),
    ("My sister plays the violin.", "Does she give concerts?"),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with real_server() as address:
        yield address


def asking(path: Path, address: str, **settings: Any) -> MemoryPipeline:
    return open_fake(
        path,
        **{
            "llm__provider": "openai",
            "llm__base_url": address,
            "llm__model": "any",
            "llm__processes": 1,
            "llm__max_in_flight": 2,
            "llm__timeout_s": PATIENCE_S,
            "llm__deadline_s": 2 * PATIENCE_S,
            "response__deadline_s": PATIENCE_S,
            "response__answer_tokens": 24,
            "response__prompt_tokens": 400,
            "retrieval__timeout_s": PATIENCE_S,
            "short_term__capacity": len(SAID),
            **settings,
        },
    )


def test_topics_and_chains_are_told_of_every_page_or_said_to_be_owed(tmp_path: Path, address: str) -> None:
    with asking(tmp_path, address) as memory:
        added = [memory.add("tom", *page) for page in SAID]
        memory.wait_idle(4 * PATIENCE_S)
        sessions = memory.sessions("tom")
        assert sorted(page_id for session in sessions for page_id in session.page_ids) == sorted(added)
        assert all(session.summary.strip() for session in sessions)
        tasks = memory.stats().tasks
        assert set(tasks) == {"continuity", "topics"}
        for told in tasks.values():
            assert told.calls > told.retries
            assert told.fallbacks in (0, 1)
            assert told.tokens_in > 100
            assert told.tokens_out > 0
        assert [page.page_id for page in all_pages(memory, "tom")] == added


def test_a_question_is_answered_whole_and_in_pieces(tmp_path: Path, address: str) -> None:
    with asking(tmp_path, address) as memory:
        memory.add("tom", *SAID[0])
        answer = memory.respond("tom", "Which pet do I have?")
        assert answer.text
        assert answer.provider == "openai"
        with memory.respond_stream("tom", "And what is its name?") as stream:
            pieces = list(stream)
        assert len(pieces) > 1
        assert stream.response is not None
        assert stream.response.text == "".join(pieces)
        said = [page.agent_response for page in all_pages(memory, "tom")]
        assert said == ["Lovely!", answer.text, stream.response.text]
        told = memory.stats().tasks["answer"]
        assert (told.calls, told.retries) == (2, 0)
        assert told.tokens_in > 100
        assert 2 < told.tokens_out <= 48


def test_what_a_dead_endpoint_owes_is_repaid_by_the_real_one(tmp_path: Path, address: str) -> None:
    """Its answers can be used every other time; a repayment asks for each twice."""
    nobody = {"llm__timeout_s": 0.2, "llm__deadline_s": 0.2, "llm__repay_interval_s": NEVER}
    with asking(tmp_path, "http://127.0.0.1:9/v1", **nobody) as memory:
        added = [memory.add("tom", *page) for page in SAID]
        memory.wait_idle(PATIENCE_S)
        stood_in = {session.summary for session in memory.sessions("tom")}
        assert memory.stats().owed == {"continuity": len(SAID), "topics": len(SAID)}
    with asking(tmp_path, address, llm__repay_interval_s=NEVER) as memory:
        memory.wait_idle(PATIENCE_S)
        repaid = 0
        for _ in range(ROUNDS):
            told = memory.repay(timeout=2 * PATIENCE_S)
            repaid += told.repaid
            if not told.owed:
                break
        assert memory.stats().owed == {}
        assert repaid == 2 * len(SAID)
        sessions = memory.sessions("tom")
        assert sorted(page_id for session in sessions for page_id in session.page_ids) == sorted(added)
        assert not {session.summary for session in sessions} & stood_in
