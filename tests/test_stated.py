"""Pages that are facts as they stand: what another memory knew of a user is knowledge here, and goes with its page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.messages import OF_USER, STATES
from tests.faults.common import PATIENCE_S, until
from tests.support import open_fake

FACTS = ["She plays the violin.", "She has a beagle named Rex.", "Her sister moved to Lisbon.", "She dislikes tomato."]
FACT = {STATES: OF_USER}


def add(memory: MemoryPipeline, *texts: str) -> list[str]:
    return [memory.add("ann", text, "", metadata=FACT, timestamp="2026-01-01") for text in texts]


def known(memory: MemoryPipeline) -> dict[str, tuple[str, ...]]:
    return {fact.text: fact.page_ids for fact in memory.knowledge("ann")}


def check_known(memory: MemoryPipeline, texts: Sequence[str]) -> None:
    assert sorted(known(memory)) == sorted(texts)
    for text in texts:
        found = memory.retrieve("ann", text, timeout=PATIENCE_S).user_knowledge
        assert found[0].fact.text == text
        assert found[0].score > 0.99  # its vector is that of its own words


def test_they_are_known_at_once_found_kept_and_forgotten_with_their_page(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        ids = add(memory, *FACTS)
        memory.add("ann", "Nothing of this is a fact.", "", metadata={STATES: "nobody"})
        memory.add("bo", FACTS[0], "")
        memory.wait_idle(PATIENCE_S)
        check_known(memory, FACTS)
        assert known(memory) == {text: (page_id,) for text, page_id in zip(FACTS, ids, strict=True)}
        assert memory.knowledge("bo") == []
        assert memory.forget(page_id=ids[1]) == 1
        left = [FACTS[0], *FACTS[2:]]
        memory.wait_idle(PATIENCE_S)
        check_known(memory, left)
    with open_fake(tmp_path) as memory:
        memory.wait_idle(PATIENCE_S)
        check_known(memory, left)
        memory.compact(PATIENCE_S)
    with open_fake(tmp_path) as memory:
        memory.wait_idle(PATIENCE_S)
        check_known(memory, left)
        assert memory.forget("ann") == 4
        assert memory.knowledge("ann") == []


def test_the_same_words_twice_are_one_fact_of_both_pages(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        ids = add(memory, FACTS[0], FACTS[0])
        memory.wait_idle(PATIENCE_S)
        ids += add(memory, FACTS[0].upper())
        memory.wait_idle(PATIENCE_S)
        assert known(memory) == {FACTS[0]: tuple(ids)}
        memory.forget(page_id=ids[0])
        check_known(memory, FACTS[:1])


def test_the_oldest_go_beyond_the_capacity_and_their_pages_stay(tmp_path: Path) -> None:
    with open_fake(tmp_path, long_term__knowledge_capacity=2) as memory:
        add(memory, *FACTS)
        memory.wait_idle(PATIENCE_S)
        check_known(memory, FACTS[2:])
        assert memory.stats().pages == len(FACTS)
    with open_fake(tmp_path, long_term__knowledge_capacity=2) as memory:
        memory.wait_idle(PATIENCE_S)
        check_known(memory, FACTS[2:])


def test_a_reader_knows_them(tmp_path: Path) -> None:
    with open_fake(tmp_path) as memory:
        add(memory, *FACTS)
        memory.wait_idle(PATIENCE_S)
        memory.flush()
        with open_fake(tmp_path, read_only=True) as reader:
            check_known(reader, FACTS)


PROGRAM = """
import os, sys, signal
from pathlib import Path
from tests.support import open_fake
from tests.test_stated import FACTS, add
memory = open_fake(Path(sys.argv[1]), store__flush_interval_s=float(sys.argv[2]))
ids = add(memory, *FACTS)
if sys.argv[3] != "add":
    memory.wait_idle(60)
if sys.argv[3] == "forget":
    memory.flush()
    memory.forget(page_id=ids[1])
os.killpg(0, signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "flush_interval_s"), [("add", 60.0), ("known", 0.0), ("known", 60.0), ("forget", 60.0)]
)
def test_a_kill_at_any_step_loses_none_and_keeps_none_that_is_forgotten(
    tmp_path: Path, step: str, flush_interval_s: float
) -> None:
    program = [sys.executable, "-c", PROGRAM, str(tmp_path), str(flush_interval_s), step]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(program, start_new_session=True, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    with open_fake(tmp_path) as memory:
        until(lambda: memory.stats().restored, "everything is read")
        if step == "forget":
            assert FACTS[1] not in known(memory)
        memory.wait_idle(PATIENCE_S)
        check_known(memory, [text for text in FACTS if step != "forget" or text != FACTS[1]])
