"""The driver as a process, and what can be told of other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import signals_heeded

__all__ = ["ROOT", "blocks_of", "driver", "noted", "session"]

ROOT = Path(__file__).parents[2]


@contextmanager
def driver(
    store: Path, notes: Path, seed: int, *, rest: bool = False, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the driver in a session of its own, so that all its processes can be told and killed by it.

    With ``rest`` it adds a few pages and then keeps the store open; ``environment`` is added to this process's own.
    """
    with (notes.with_suffix(".log")).open("ab") as log, signals_heeded():
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", store, notes, str(seed), *["rest"] * rest],
            cwd=ROOT,
            env={**os.environ, **environment},
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if session(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def session(leader: int) -> list[int]:
    """Return the living processes of a session; zombies hold nothing any more."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == leader and fields[0] not in "ZX":
            pids.append(int(stat.parent.name))
    return pids


def noted(notes: Path, before: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return what was accepted before, and behind it what the driver noted."""
    accepted = {user: list(page_ids) for user, page_ids in before.items()}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        user, page_id = line.split()
        accepted.setdefault(user, []).append(page_id)
    return accepted


def blocks_of(leader: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"mos-{leader}-*")]
