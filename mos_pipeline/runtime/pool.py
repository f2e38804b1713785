"""One pool of workers: what its role is, who is in it, and what is told of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from mos_pipeline.config import Runtime
from mos_pipeline.runtime.channel import Channel
from mos_pipeline.runtime.ledger import Ledger
from mos_pipeline.runtime.meter import Meter
from mos_pipeline.runtime.spending import Spending
from mos_pipeline.runtime.start import ChildProcess
from mos_pipeline.runtime.worker import Stage

__all__ = ["Outcome", "Pool", "PoolState", "Role", "Worker"]

# A worker that has closed its pipe can't be heard any more; it gets so long to end by itself.
MUTE_S = 5.0


@dataclass(frozen=True, slots=True)
class Role:
    """What the workers of one pool are.

    Attributes:
        build: a module-level class or function that makes the stage in the child.
        credit: bytes of work that one worker may have in its hands.
        units: pieces of work likewise; None is no limit. Where each takes long, what one worker need not have yet is
            for the others.
        blames: may a worker's death be its work's fault; work that can't be blamed is given out again for ever.
        stateful: at shutdown it is told to finish what it accepted; others are ended at once.
        cancels: whether its stage takes units of kind ``WITHDRAW``, which have one that it was given cancelled.
        heirs: is a worker that takes the place of another one told, by one more argument for ``build``, what that has
            spent: ``Spending.left``.
        differs: what is wrong with a worker that tells the second of itself, where one before it told the first; empty
            where it may take its place. Without it any may.
    """

    name: str
    build: Callable[..., Stage]
    args: tuple[Any, ...]
    workers: int = 1
    credit: int = 1 << 20
    units: int | None = None
    blames: bool = True
    stateful: bool = False
    cancels: bool = False
    heirs: bool = False
    differs: Callable[[Mapping[str, Any], Mapping[str, Any]], str] | None = None


class Outcome(NamedTuple):
    """What became of a unit.

    Attributes:
        fate: "done"; "refused" by a worker that is well; "killed" its worker too often; "broken": its worker died when
            a part of its result had been handed out; "down": the pool has failed.
        error: why, where the fate is not "done".
    """

    unit_id: int
    fate: Literal["done", "refused", "killed", "broken", "down"]
    result: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool at one moment.

    Attributes:
        state: "starting", "ready" or "failed".
        info: what the stage said of itself when it was ready.
        meter: the calls that its workers, the dead ones included, have made to a model.
        down_since: since when, in seconds since 1970, one of them has found the model's endpoint down; None where all
            find it up.
    """

    state: str
    workers: int
    pids: tuple[int, ...]
    waiting: int
    restarts: int
    info: Mapping[str, Any]
    meter: Meter
    error: str | None
    down_since: float | None = None


@dataclass(slots=True, eq=False)
class Worker:
    """A process and the way to it.

    Attributes:
        born: when it was started, in monotonic seconds.
        heard: when it last said something, or got work into empty hands.
        eof: it has closed its pipe.
        down_since: since when, in seconds since 1970, the endpoint that it asks has been down; None where it is not.
    """

    process: ChildProcess
    channel: Channel
    born: float
    heard: float
    ready: bool = False
    eof: bool = False
    down_since: float | None = None
    spending: Spending = field(default_factory=Spending)

    def end(self) -> int | None:
        """Wait for the dead process, let go of everything, and return its exit code."""
        self.process.join()
        code = self.process.exitcode
        self.channel.close()
        self.process.close()
        return code


@dataclass(slots=True, eq=False)
class Pool:
    """The workers of one role and their work. Not thread-safe: the supervisor holds a lock.

    Attributes:
        start_at: when (monotonic seconds) workers are to be started, one entry each.
        deaths_in_a_row: since work was last done.
        error: why it has failed for good.
        legacies: what workers had spent that died, and that nobody has taken the place of yet.
    """

    role: Role
    ledger: Ledger
    workers: list[Worker] = field(default_factory=list)
    start_at: list[float] = field(default_factory=list)
    deaths_in_a_row: int = 0
    restarts: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)
    legacies: deque[Spending] = field(default_factory=deque)
    error: str | None = None

    def hand_out(self) -> None:
        """Give waiting work to workers that may have it, the least busy first; each gets its share in one message."""
        shares = [(worker, list[bytes]()) for worker in self.workers if worker.ready]
        given = bool(shares)
        while given:
            given = False
            for worker, messages in sorted(shares, key=lambda share: self.ledger.busy(share[0])):
                idle = not self.ledger.busy(worker)
                if unit := self.ledger.give(worker):
                    messages.append(unit.message)
                    given = True
                    if idle:
                        worker.heard = time.monotonic()
        for worker, messages in shares:
            if messages:
                worker.channel.send(b"".join(messages))

    def overdue(self, config: Runtime, now: float) -> list[Worker]:
        """Return the workers that have been silent past a time limit: over work, at their start, or for good."""
        return [
            worker
            for worker in self.workers
            if (self.ledger.busy(worker) and now - worker.heard > config.work_timeout_s)
            or (not worker.ready and now - worker.born > config.start_timeout_s)
            or (worker.eof and now - worker.heard > MUTE_S)
        ]

    def snapshot(self) -> PoolState:
        """Return how it stands."""
        ready = any(worker.ready for worker in self.workers)
        return PoolState(
            state="failed" if self.error else "ready" if ready else "starting",
            workers=len(self.workers),
            pids=tuple(worker.process.pid or 0 for worker in self.workers),
            waiting=len(self.ledger),
            restarts=self.restarts,
            info=dict(self.info),
            meter=self.meter.copy(),
            error=self.error,
            down_since=min((one.down_since for one in self.workers if one.down_since is not None), default=None),
        )
