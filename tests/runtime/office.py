"""A supervisor under test, and everything it says."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Any

from mos_pipeline.config import Runtime
from mos_pipeline.runtime.supervisor import Outcome, PoolState, Role, Supervisor
from tests.runtime.stages import Toy

__all__ = ["PATIENCE_S", "Office", "alive", "gone", "toy"]

PATIENCE_S = 60.0


def toy(*args: Any, name: str = "toy", **settings: Any) -> Role:
    return Role(name, Toy, args, **settings)


def alive(pid: int) -> bool:
    """Return whether there is such a process that is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Wait until none of the processes is alive; return whether it came to that."""
    deadline = time.monotonic() + PATIENCE_S
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


class Office:
    """Runs a supervisor; a context that closes it. Settings are those of ``Runtime``."""

    def __init__(self, *roles: Role, **settings: Any) -> None:
        self.outcomes: dict[int, list[Outcome]] = defaultdict(list)
        self.order: list[int] = []
        self.changes: list[str] = []
        self.broken_callback = False
        self._news = threading.Condition()
        config = Runtime(**{"restart_backoff_s": 0.01, **settings})
        self.supervisor = Supervisor(list(roles) or [toy()], config, self._told, self._changed)

    def _told(self, role: str, outcome: Outcome) -> None:
        with self._news:
            self.outcomes[outcome.unit_id].append(outcome)
            self.order.append(outcome.unit_id)
            self._news.notify_all()
        if self.broken_callback:
            raise RuntimeError("the callback broke")

    def _changed(self, role: str) -> None:
        with self._news:
            self.changes.append(role)
            self._news.notify_all()
        if self.broken_callback:
            raise RuntimeError("the callback broke")

    def submit(self, kind: str, payload: Any = None, role: str = "toy", *, urgent: bool = False) -> int:
        unit = self.supervisor.unit(kind, payload, urgent=urgent)
        self.supervisor.submit(role, [unit])
        return unit.unit_id

    def outcome(self, unit_id: int) -> Outcome:
        """Wait for the unit's outcome: the only one."""
        with self._news:
            assert self._news.wait_for(lambda: self.outcomes[unit_id], PATIENCE_S), f"unit {unit_id} was not answered"
            (outcome,) = self.outcomes[unit_id]
            return outcome

    def ask(self, kind: str, payload: Any = None, role: str = "toy") -> Outcome:
        return self.outcome(self.submit(kind, payload, role))

    def wait(self, state: str, role: str = "toy") -> PoolState:
        """Wait until the pool is in that state, all its workers on their feet."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.supervisor.state(role)).state != state:
            assert time.monotonic() < deadline, f"the pool is {found}, not {state}"
            time.sleep(0.005)
        return found

    def pids(self, role: str = "toy") -> list[int]:
        return list(self.supervisor.state(role).pids)

    def signal(self, number: int, role: str = "toy") -> int:
        """Send a signal to the pool's first worker; return its pid."""
        pid = self.pids(role)[0]
        os.kill(pid, number)
        return pid

    def close(self, within: float = PATIENCE_S) -> None:
        self.supervisor.close(time.monotonic() + within)

    def __enter__(self) -> Office:
        self.supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.supervisor._thread.is_alive():
            self.close()
