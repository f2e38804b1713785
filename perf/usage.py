"""What Linux tells of threads: how long they ran and waited for a core, how often they gave it up; and bytes passed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Usage", "of_process", "of_threads", "passed_bytes", "threads_named"]

NS = 1e9


class Usage(NamedTuple):
    """What some threads have used up to now, or between two moments.

    Attributes:
        ran: seconds of processor time.
        waited: seconds in which they could have run, and no core was free.
        gave_up: how often they gave the core up, to wait for something.
        lost: how often it was taken from them.
    """

    ran: float = 0.0
    waited: float = 0.0
    gave_up: int = 0
    lost: int = 0

    def since(self, before: Usage) -> Usage:
        """Return what was used after ``before``."""
        ran, waited = self.ran - before.ran, self.waited - before.waited
        return Usage(ran, waited, self.gave_up - before.gave_up, self.lost - before.lost)

    def plus(self, other: Usage) -> Usage:
        """Return both together."""
        ran, waited = self.ran + other.ran, self.waited + other.waited
        return Usage(ran, waited, self.gave_up + other.gave_up, self.lost + other.lost)


def of_threads(pid: int, threads: Iterable[int]) -> Usage:
    """Return what threads of a process, by their ids, have used; those that have ended count for nothing."""
    total = Usage()
    for thread in threads:
        folder = Path(f"/proc/{pid}/task/{thread}")
        try:
            ran, waited, _ = map(int, (folder / "schedstat").read_text("utf-8").split())
            switches = [
                int(line.split()[1])
                for line in (folder / "status").read_text("utf-8").splitlines()
                if "voluntary_ctxt_switches" in line
            ]
        except (FileNotFoundError, ProcessLookupError):
            continue
        total = total.plus(Usage(ran / NS, waited / NS, *switches))
    return total


def of_process(pid: int) -> Usage:
    """Return what all threads of a process that have not ended have used."""
    return of_threads(pid, (int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()))


def threads_named(prefix: str) -> list[int]:
    """Return the ids of this process's threads whose Python names begin so."""
    return [each.native_id for each in threading.enumerate() if each.name.startswith(prefix) and each.native_id]


def passed_bytes(pid: int) -> tuple[int, int]:
    """Return how many bytes a process has read and written up to now, files and pipes alike."""
    lines = Path(f"/proc/{pid}/io").read_text("utf-8").splitlines()
    told = dict(line.split(": ") for line in lines)
    return int(told["rchar"]), int(told["wchar"])
