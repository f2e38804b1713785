"""Equal texts are embedded once: over users, in flight, after reopening and deaths; never by what was forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.engine import embedding
from mos_pipeline.memory.known_texts import digest_of
from mos_pipeline.messages import embedded_text
from mos_pipeline.store.codec import FrameKind
from mos_pipeline.store.derived import decode_vectors
from tests.faults.common import PATIENCE_S, check_consistent, frames_of, until
from tests.faults.stages import COUNTED_IN, HELD_UNTIL, POISON, CountedEmbedStage, HeldEmbedStage, PoisonedEmbedStage
from tests.readers.common import SETTINGS, settled
from tests.support import all_pages, open_fake, page_text
from tests.test_reembed import NEW, OLD, check_vectors, derived

SAID = "I have a beagle called Rex.", "A fine name."
USERS = [f"user {number}" for number in range(20)]
OFF: dict[str, Any] = {"embedding__known_texts": 0}


def counts(memory: MemoryPipeline) -> tuple[int, int]:
    """How many texts were computed, and how many were not."""
    stats = memory.stats()
    return stats.embedded_texts, stats.reused_texts


def add_equal(memory: MemoryPipeline, users: list[str] = USERS) -> list[str]:
    return [memory.add(user, *SAID) for user in users]


def test_equal_pages_of_many_users_are_embedded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "EmbedStage", CountedEmbedStage)
    counted = tmp_path / "counted"
    monkeypatch.setenv(COUNTED_IN, str(counted))
    with open_fake(tmp_path / "store") as memory:
        ids = add_equal(memory)
        settled(memory)
        assert counts(memory) == (1, len(USERS) - 1)
        add_equal(memory)
        settled(memory)
        assert counts(memory) == (1, 2 * len(USERS) - 1)
        assert counted.read_bytes() == b".", "the model was asked for more"
        assert memory.stats().known_texts == 1
        check_vectors(memory, OLD)
        for user, page_id in zip(USERS, ids, strict=True):
            found = memory.retrieve(user, SAID[0], timeout=PATIENCE_S)
            assert {hit.page.user_id for hit in found.pages} == {user}
            assert page_id in {hit.page.page_id for hit in found.pages}
            assert all(hit.dense and hit.dense > 0.5 for hit in found.pages)
    with open_fake(tmp_path / "store") as memory:
        until(lambda: memory.stats().restored, "it is read")
        assert memory.stats().known_texts == 1
        add_equal(memory)
        settled(memory)
        assert counts(memory) == (0, len(USERS))
        assert len(counted.read_bytes()) == 1 + len(USERS), "it was asked for more than that page and the questions"
        check_vectors(memory, OLD)
        check_consistent(memory)
    with open_fake(tmp_path / "store", **OFF) as memory:
        add_equal(memory)
        settled(memory)
        assert counts(memory) == (len(USERS), 0)
        assert memory.stats().known_texts == 0
        memory.add("tom", *page_text(1))
        settled(memory)
    with open_fake(tmp_path / "store") as memory:  # what came while none was remembered is not known
        memory.add("ann", *page_text(1))
        memory.add("ann", *SAID)
        settled(memory)
        assert counts(memory) == (1, 1)


def talk(memory: MemoryPipeline, user: str) -> None:
    """Add pages some of which other users have, too, in the same batches as pages of this user's own."""
    rounds = [page_text(number) if number % 3 else page_text(1000 * int(user[-1]) + number) for number in range(24)]
    for number, (said, answered) in enumerate([*rounds, *rounds[:7]]):
        moment = f"2026-03-01 10:{number:02}:00"
        memory.add(
            user, f"I live in town{number % 24 % 7}. {said}", answered, timestamp=moment, page_id=f"{user}/{number}"
        )


def check_digests(store: Path, memory: MemoryPipeline, *, known: bool) -> None:
    """Check that the frames have each page's own, or none."""
    expected = [digest_of(embedded_text(page.user_input, page.agent_response), 8192) for page in all_pages(memory)]
    frames = [decode_vectors(frame.body) for _, frame in frames_of(store, FrameKind.VECTORS)]
    found = {seq: digest for frame in frames for seq, digest in zip(*map(list, frame[::2]), strict=True)}
    assert found == {seq: digest * known for seq, digest in enumerate(expected)}


def test_memory_is_the_same_as_if_every_text_were_embedded(tmp_path: Path) -> None:
    found = []
    for name, settings in (("on", {}), ("off", OFF)):
        with open_fake(tmp_path / name, **SETTINGS, **settings) as memory:
            for user in ("ann 1", "ben 2", "cem 3"):
                talk(memory, user)
            check_vectors(settled(memory), OLD)
            check_consistent(memory)
            found.append((derived(memory), *counts(memory)))
            check_digests(tmp_path / name, memory, known=name == "on")
    (told, computed, reused), (told_off, computed_off, reused_off) = found
    assert told["pages"] == told_off["pages"]
    for user in ("ann 1", "ben 2", "cem 3"):  # when which pages are promoted depends on what comes when
        assert told[user][0] == told_off[user][0]
    assert told["ann 1"][0]
    assert told["ann 1"][2][0]
    assert reused_off == 0
    assert reused > 93 - 40, "of 93 pages 40 are different; summaries and facts are among the others"
    assert computed < computed_off


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, until which is there the embedder does not begin."""
    monkeypatch.setattr(embedding, "EmbedStage", HeldEmbedStage)
    monkeypatch.setenv(HELD_UNTIL, str(tmp_path / "go"))
    return tmp_path / "go"


def given_out(memory: MemoryPipeline, texts: int) -> None:
    until(lambda: memory.stats().in_flight_texts == texts, "all are given out, or wait for those that are")


@pytest.mark.slow
def test_a_killed_embedder_embeds_it_all_the_same(tmp_path: Path, held: Path) -> None:
    with open_fake(tmp_path / "store", short_term__capacity=1) as memory:
        add_equal(memory)
        memory.add("tom", *page_text(1))
        given_out(memory, len(USERS) + 1)
        os.kill(memory.stats().workers["embedder"].pids[0], signal.SIGKILL)
        until(lambda: memory.stats().workers["embedder"].restarts, "its death was noticed")
        held.touch()
        settled(memory)
        check_vectors(memory, OLD)
        check_consistent(memory)
        summaries = memory.stats().sessions
        assert sum(counts(memory)) == len(USERS) + 1 + summaries
        assert counts(memory)[0] == 2 + 2, "of two pages and their summaries"


PROGRAM = """
import os, signal, sys
from pathlib import Path
from tests.support import open_fake
from tests.test_equal_texts import add_equal, settled
with open_fake(Path(sys.argv[1])) as memory:
    add_equal(memory)
    settled(memory)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_after_the_owner_was_killed_it_is_known(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=False, timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL
    with open_fake(tmp_path) as memory:
        add_equal(memory)
        settled(memory)
        assert counts(memory) == (0, len(USERS))
        check_vectors(memory, OLD)


def digests_in(store: Path) -> list[int]:
    frames = [decode_vectors(frame.body) for _, frame in frames_of(store, FrameKind.VECTORS)]
    return [digest for frame in frames for digest in frame.digests.tolist()]


def test_what_is_forgotten_is_not_known_any_more(tmp_path: Path) -> None:
    with open_fake(tmp_path, store__max_dead_ratio=1.0) as memory:
        memory.add("ann", *SAID)
        memory.add("ann", *page_text(1))
        settled(memory)
        assert memory.stats().known_texts == 2
        memory.forget("ann")
        settled(memory)
        assert memory.stats().known_texts == 0
        memory.add("ben", *SAID)
        settled(memory)
        assert counts(memory) == (3, 0)
        check_vectors(memory, OLD)
        memory.forget("ben")
        settled(memory)
    assert len(digests_in(tmp_path)) == 3
    with open_fake(tmp_path, store__max_dead_ratio=1.0) as memory:
        until(lambda: memory.stats().restored, "it is read")
        assert memory.stats().known_texts == 0, "the frames are still there, and their pages are not"
        memory.compact(PATIENCE_S)
        memory.add("cem", *SAID)
        settled(memory)
        assert counts(memory) == (1, 0)
    assert len(digests_in(tmp_path)) == 1


def test_forgetting_while_others_wait_for_the_text_costs_them_nothing(tmp_path: Path, held: Path) -> None:
    with open_fake(tmp_path / "store", short_term__capacity=1) as memory:
        add_equal(memory)
        given_out(memory, len(USERS))
        memory.forget(USERS[0])  # whose text it is that the embedder has
        memory.forget(USERS[5])
        given_out(memory, len(USERS))
        held.touch()
        settled(memory)
        assert memory.stats().pages == len(USERS) - 2
        check_vectors(memory, OLD)
        check_consistent(memory)
        assert counts(memory)[0] == 2, "of a page and its summary"


def test_another_model_uses_no_vector_of_the_one_before(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        add_equal(memory)
        memory.add("tom", *page_text(1))
        settled(memory)
    with open_fake(tmp_path, embedding__fake_dimension=NEW, reembed=True) as memory:
        add_equal(memory)
        settled(memory)
        assert counts(memory) == (2, 2 * len(USERS) - 1)
        check_vectors(memory, NEW)
    with open_fake(tmp_path, embedding__fake_dimension=NEW) as memory:
        until(lambda: memory.stats().restored, "it is read")
        assert memory.stats().known_texts == 2
        add_equal(memory)
        settled(memory)
        assert counts(memory) == (0, len(USERS))
        check_vectors(memory, NEW)


@pytest.mark.slow
def test_equal_pages_that_kill_the_embedder_are_each_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"runtime__restart_backoff_s": 0.001, "runtime__max_attempts": 2, "short_term__capacity": 2}
    monkeypatch.setattr(embedding, "EmbedStage", PoisonedEmbedStage)
    poisoned = f"There is {POISON} in the garden.", "Do not eat it."
    with open_fake(tmp_path, **settings) as memory:
        ids = []
        for user in USERS[:2]:
            memory.add(user, *SAID)
            ids.append(memory.add(user, *poisoned))
            memory.add(user, *page_text(1))
        settled(memory)
        assert set(memory.stats().set_aside) == set(ids)
        assert counts(memory)[1] >= 2, "the other texts were embedded again and again"
        monkeypatch.undo()
    with open_fake(tmp_path, **settings) as memory:
        assert memory.retry() == len(ids)
        settled(memory)
        assert not memory.stats().set_aside
        check_consistent(memory)
        assert len(all_pages(memory)) == 6
        check_vectors(memory, OLD)


def test_only_so_many_texts_are_known_as_the_setting_says(tmp_path: Path) -> None:
    with open_fake(tmp_path, embedding__known_texts=3) as memory:
        for number in range(5):
            memory.add("ann", *page_text(number))
            settled(memory)
        assert memory.stats().known_texts == 3
        memory.add("ben", *page_text(4))
        memory.add("ben", *page_text(0))
        settled(memory)
        assert counts(memory) == (6, 1)
    with open_fake(tmp_path, embedding__known_texts=3) as memory:
        until(lambda: memory.stats().restored, "it is read")
        assert memory.stats().known_texts == 3
        memory.add("cem", *page_text(0))  # among the newest
        memory.add("cem", *page_text(1))
        settled(memory)
        assert counts(memory) == (1, 1)
