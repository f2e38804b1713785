"""What a model owes is kept, shown and repaid: through the whole pipeline, with the fake endpoint."""

from __future__ import annotations

from pathlib import Path

from mos_pipeline import MemoryPipeline
from mos_pipeline.testing import FakeOpenAI, replies
from tests.faults.common import PATIENCE_S, until
from tests.llm.test_llm_pipeline import PAGES, USERS, added, check_whole, opened, texts_of

NEVER = 3600.0
ALL_TASKS = {"continuity", "topics", "profile", "knowledge"}


def check_told_by_the_model(memory: MemoryPipeline) -> None:
    """Check that nothing is left of what the extractive provider told."""
    for user in USERS:
        assert memory.sessions(user)
        assert all(session.summary.startswith("They spoke of this: ") for session in memory.sessions(user))
        assert all(fact.text.startswith("The user said: ") for fact in memory.knowledge(user))
        assert memory.profile(user).text.startswith("- interest in this: High, said number")
        found = memory.retrieve(user, "number", k=PAGES, timeout=PATIENCE_S).pages
        assert all("Then: " in hit.overview for hit in found if hit.overview)


def test_what_is_owed_is_told_survives_and_is_repaid_on_request(tmp_path: Path, fake: FakeOpenAI) -> None:
    fake.script.add(replies.status(404), times=None)
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        ids = added(memory)
        check_whole(memory, ids)
        owed = memory.stats().owed
        assert owed == dict.fromkeys(["continuity", "topics"], len(USERS) * PAGES) | {
            "profile": owed["profile"],
            "knowledge": owed["profile"],
        }
        before = memory.repay()
        assert before.repaid == 0
        assert before.owed == sum(owed.values())
        check_whole(memory, ids)
    fake.script.clear()
    with opened(tmp_path, fake, llm__repay_interval_s=NEVER) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        assert memory.stats().owed == owed
        done = memory.repay(timeout=PATIENCE_S)
        assert (done.repaid, done.owed) == (sum(owed.values()), 0)
        assert memory.stats().owed == {}
        check_whole(memory, ids)
        check_told_by_the_model(memory)
        calls = fake.calls
        assert memory.repay() == type(done)(0, 0)
        assert fake.calls == calls
        told = [list(texts_of(memory, user)) for user in USERS]
    with opened(tmp_path, fake) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        assert memory.stats().owed == {}
        check_whole(memory, ids)
        assert [list(texts_of(memory, user)) for user in USERS] == told
