"""A pipeline whose stages run in this process, on one thread, so that all it does to its files can be recorded."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.config import Runtime
from mos_pipeline.engine import engine
from mos_pipeline.messages import decode, encode
from mos_pipeline.runtime.ledger import Unit
from mos_pipeline.runtime.meter import Meter
from mos_pipeline.runtime.supervisor import Outcome, PoolState, Role
from mos_pipeline.runtime.worker import Stage
from tests.support import open_fake

__all__ = ["SMALL", "owner"]

SMALL: dict[str, Any] = {  # so that files are begun and finished often
    "store__durability": "power",
    "store__journal_bytes": 65536,
    "store__segment_bytes": 65536,
    "store__flush_interval_s": 0.005,
    "store__frame_pages": 8,
    "embedding__slab_bytes": 1 << 20,
    "short_term__capacity": 4,
    "runtime__socket": False,  # which says nothing after a power cut
}


class _Report:
    def __init__(self, tell: Callable[[Outcome], None]) -> None:
        self._tell = tell

    def started(self, unit_ids: Sequence[int]) -> None: ...

    def piece(self, unit_id: int, piece: Any) -> None:
        raise AssertionError("it answers whole")

    def done(self, unit_id: int, result: Any) -> None:
        self._tell(Outcome(unit_id, "done", decode(encode(result))))

    def failed(self, unit_id: int, message: str) -> None:
        self._tell(Outcome(unit_id, "refused", error=message))

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        raise AssertionError("it calls no model")

    def endpoint(self, down_since: float | None) -> None:
        raise AssertionError("it asks no endpoint")


class _Room:
    """One stage, and what came of its work; it takes the place of a worker's process."""

    def __init__(self, role: Role, tell: Callable[[str, Outcome], None]) -> None:
        self.stage: Stage = role.build(*role.args)
        self.info = self.stage.prepare()
        self.report = _Report(lambda outcome: tell(role.name, outcome))


class InProcess:
    """Takes the supervisor's place: every stage is here, and does at once what it is given."""

    def __init__(
        self,
        roles: list[Role],
        _config: Runtime,
        on_outcome: Callable[[str, Outcome], None],
        on_change: Callable[[str], None],
        _on_piece: Callable[[int, Any], None],
    ) -> None:
        self._roles = roles
        self._rooms: dict[str, _Room] = {}
        self._on_outcome = on_outcome
        self._on_change = on_change
        self._ids = itertools.count(1)
        self._work: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stages")

    def start(self) -> None:
        self._thread.start()

    def unit(self, kind: str, payload: Any, *, urgent: bool = False) -> Unit:
        unit_id = next(self._ids)
        return Unit(unit_id, kind, encode([unit_id, kind, payload]), urgent)

    def submit(self, role: str, units: Sequence[Unit]) -> None:
        for unit in units:
            self._work.put((role, unit.message))

    def withdraw(self, role: str, unit_id: int) -> None: ...

    def state(self, role: str) -> PoolState:
        room = self._rooms.get(role)
        return PoolState("ready" if room else "starting", 1, (), 0, 0, room.info if room else {}, Meter(), None)

    def close(self, _deadline: float) -> None:
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        for role in self._roles:
            self._rooms[role.name] = _Room(role, self._on_outcome)
            self._on_change(role.name)
        while (work := self._work.get()) is not None:
            name, message = work
            room = self._rooms[name]
            room.stage.accept(*decode(message))
            while room.stage.pending:
                room.stage.step(room.report)
        for room in self._rooms.values():
            room.stage.close()


@contextmanager
def owner(path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[MemoryPipeline]:
    """Open the store in ``path`` with all its stages in this process, and close it at the end."""
    monkeypatch.setattr(engine, "Supervisor", InProcess)
    with open_fake(path, **{**SMALL, **settings}) as memory:
        yield memory
