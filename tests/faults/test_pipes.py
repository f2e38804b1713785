"""Half a message in a pipe, when one end of it dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.common import PATIENCE_S, fill, nothing_left, until
from tests.support import open_fake

pytestmark = pytest.mark.slow

LONG = "word " * 200_000  # 1 MB: far more than a pipe holds


@pytest.mark.parametrize("role", ["embedder", "llm", "writer"])
def test_half_a_message_to_a_worker_that_dies_is_given_out_whole(tmp_path: Path, role: str) -> None:
    """Stopped, it reads nothing: what is sent to it fills its pipe and stays in there in part."""
    settings = {"llm__processes": 1, "store__flush_interval_s": 0.02, "runtime__restart_backoff_s": 0.001}
    with nothing_left(), open_fake(tmp_path / "store", short_term__capacity=2, **settings) as memory:
        until(lambda: memory.stats().workers[role].state == "ready", f"the {role} is ready")
        (pid,) = memory.stats().workers[role].pids
        os.kill(pid, signal.SIGSTOP)
        for number in range(4):
            memory.add("ann", f"number{number} {LONG}", "I see.")
        until(lambda: memory.stats().workers[role].waiting, f"the {role} has work")
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        fill(memory, 4, ["ann"], first=4)
        memory.wait_idle(PATIENCE_S)
        assert memory.stats().workers[role].restarts >= 1
        assert not memory.stats().set_aside
        assert [page.user_input.split()[0] for page in memory.pages("ann")] == [f"number{n}" for n in range(8)]
        assert memory.verify().ok
