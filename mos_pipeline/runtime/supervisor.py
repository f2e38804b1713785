"""The pools of workers and the thread that watches over them.

One thread waits on every worker's pipe and sentinel at once, passes results on, and restarts in place what died. Work
is handed out from the submitting thread. Order of shutdown: workers without state are ended at once (what they had is
on disk and is given out again by the next owner), workers with state are told to stop, finish what they accepted and
exit; all of them share one deadline, after which come SIGTERM and SIGKILL.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from selectors import EVENT_READ, DefaultSelector
from typing import Any, Literal, NamedTuple

from mos_pipeline.config import Runtime
from mos_pipeline.errors import WorkerError
from mos_pipeline.messages import encode
from mos_pipeline.runtime.channel import Channel
from mos_pipeline.runtime.ledger import Ledger, Unit
from mos_pipeline.runtime.pool import Outcome, Pool, PoolState, Role, Worker
from mos_pipeline.runtime.spending import Spending
from mos_pipeline.runtime.start import ChildProcess
from mos_pipeline.runtime.worker import WITHDRAW, run_worker

__all__ = ["Outcome", "PoolState", "Role", "Supervisor"]

logger = logging.getLogger(__name__)

MAX_BACKOFF_S = 5.0
CHECK_EVERY_S = 0.05  # deadlines, however often workers say something


class _Watched(NamedTuple):
    """What a worker says, or (``died``) its sentinel."""

    pool: Pool
    worker: Worker
    died: bool = False


class Supervisor:
    """Starts the pools, hands out work, restarts workers, and stops everything."""

    def __init__(
        self,
        roles: list[Role],
        config: Runtime,
        on_outcome: Callable[[str, Outcome], None],
        on_change: Callable[[str], None],
        on_piece: Callable[[int, Any], None] | None = None,
    ) -> None:
        """Watch over ``roles``; the callbacks run on the supervisor's thread and must not block."""
        self._config = config
        self._on_piece = on_piece
        self._abandoned: deque[tuple[str, int]] = deque()
        self._on_outcome = on_outcome
        self._on_change = on_change
        self._pools = {role.name: Pool(role, Ledger(config.max_attempts, role.credit, role.units)) for role in roles}
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._deadline: float | None = None
        self._check_at = 0.0
        self._wake_read, self._wake_write = os.pipe()
        self._watched = DefaultSelector()  # pipes and sentinels of all workers; the supervisor's thread alone
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="mos-supervisor", daemon=True
        )

    def start(self) -> None:
        """Begin starting the workers, in the background."""
        for pool in self._pools.values():
            pool.start_at = [0.0] * pool.role.workers
        self._thread.start()

    def unit(self, kind: str, payload: Any, *, urgent: bool = False) -> Unit:
        """Return ``[unit_id, kind, payload]`` to be submitted; its id is known before its result can arrive."""
        unit_id = next(self._ids)
        return Unit(unit_id, kind, encode([unit_id, kind, payload]), urgent)

    def submit(self, role: str, units: Sequence[Unit]) -> None:
        """Give units to workers of ``role``, or let them wait for one; urgent ones go before others.

        Raises:
            WorkerError: the pool has failed for good.
        """
        pool = self._pools[role]
        with self._lock:
            if pool.error is not None:
                raise WorkerError(pool.error)
            pool.ledger.add(units)
            pool.hand_out()

    def withdraw(self, role: str, unit_id: int) -> None:
        """Take back a unit that no worker has begun to work on; its outcome, if there comes one, is unwanted."""
        with self._lock:
            self._pools[role].ledger.withdraw(unit_id)

    def abandon(self, role: str, unit_id: int) -> None:
        """Give up a unit wherever it is, within a second or so; its outcome, if there comes one, is unwanted.

        It takes no lock, so a finaliser may call it, which the interpreter runs amid anything.
        """
        self._abandoned.append((role, unit_id))

    def state(self, role: str) -> PoolState:
        """Return a snapshot of a pool."""
        pool = self._pools[role]
        with self._lock:
            return pool.snapshot()

    def close(self, deadline: float) -> None:
        """Stop all workers in order; by ``deadline`` (monotonic seconds) whatever is left is killed."""
        with self._lock:
            self._deadline = deadline
            for pool in self._pools.values():
                pool.start_at = []
                for worker in pool.workers:
                    if pool.role.stateful and worker.ready:
                        worker.channel.send_stop()
                    else:
                        worker.process.kill()
        os.write(self._wake_write, b"x")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        self._watched.register(self._wake_read, EVENT_READ, None)
        while self._deadline is None or any(pool.workers for pool in self._pools.values()):
            self._start_due()
            ready = [key.data for key, _ in self._watched.select(self._until_next_check())]
            # Pipes before sentinels: what a worker said before its death counts.
            for who in sorted(filter(None, ready), key=lambda who: who.died):
                if who.died:
                    self._bury(who.pool, who.worker)
                elif not who.worker.eof:
                    self._read(who.pool, who.worker)
            if None in ready:
                os.read(self._wake_read, 64)
            self._give_up_abandoned()
            if self._deadline is not None or time.monotonic() >= self._check_at:
                self._check_deadlines()
        self._watched.close()

    def _give_up_abandoned(self) -> None:
        while self._abandoned:
            role, unit_id = self._abandoned.popleft()
            pool = self._pools[role]
            with self._lock:
                worker = pool.ledger.abandon(unit_id)
                if isinstance(worker, Worker) and pool.role.cancels:
                    worker.channel.send(encode([unit_id, WITHDRAW, None]))

    def _until_next_check(self) -> float:
        now = time.monotonic()
        due = [at for pool in self._pools.values() for at in pool.start_at]
        if self._deadline is not None:
            due.append(self._deadline)
        return max(0.0, min([*due, now + 1.0]) - now)

    def _start_due(self) -> None:
        now = time.monotonic()
        for pool in [pool for pool in self._pools.values() if pool.start_at]:
            with self._lock:
                due = [at for at in pool.start_at if at <= now]
                pool.start_at = [at for at in pool.start_at if at > now]
            for _ in due:
                self._start_worker(pool)

    def _start_worker(self, pool: Pool) -> None:
        role, channel, now = pool.role, Channel(), time.monotonic()
        spending = pool.legacies.popleft() if pool.legacies else Spending()
        args = (*role.args, spending.left(now)) if role.heirs else role.args
        process = ChildProcess(
            target=run_worker,
            args=(role.build, args, channel.worker_end()),
            name=f"mos-{role.name}",
            daemon=True,
        )
        try:
            process.start()
        except OSError as error:
            logger.warning("%s: the worker could not be started (%s); trying again", role.name, error)
            channel.close()
            pool.legacies.append(spending)
            self._count_death(pool, f"could not be started: {error}")
            return
        except Exception as error:  # multiprocessing refuses for good, by errors of many kinds
            logger.exception("%s: the worker can't be started", role.name)
            channel.close()
            self._fail(pool, f"the {role.name} can't be started from this process: {error!r}")
            return
        now = time.monotonic()
        channel.drop_worker_end()
        worker = Worker(process, channel, now, now, spending=spending)
        with self._lock:
            pool.workers.append(worker)
            if self._deadline is not None:
                process.kill()
        self._watched.register(worker.channel.pipe, EVENT_READ, _Watched(pool, worker))
        self._watched.register(process.sentinel, EVENT_READ, _Watched(pool, worker, died=True))

    def _read(self, pool: Pool, worker: Worker) -> None:
        """Take what the worker has said; leave it to the sentinel to tell of its death."""
        try:
            reports = worker.channel.receive()
        except EOFError:
            worker.eof, worker.heard = True, time.monotonic()
            self._watched.unregister(worker.channel.pipe)
            return
        for report in reports:
            self._take(pool, worker, report)

    def _take(self, pool: Pool, worker: Worker, report: list[Any]) -> None:
        worker.heard = time.monotonic()
        match report:
            case ["done", unit_id, result]:
                self._finish(pool, worker, Outcome(unit_id, "done", result))
            case ["piece", unit_id, piece]:
                self._pass_on(pool, worker, unit_id, piece)
            case ["started", unit_ids] if pool.role.blames:
                with self._lock:
                    pool.ledger.started(worker, unit_ids)
            case ["failed", unit_id, message]:
                self._finish(pool, worker, Outcome(unit_id, "refused", error=message))
            case ["meter", told]:
                with self._lock:
                    pool.meter.add(told)
                    worker.spending.add(told, worker.heard)
            case ["endpoint", down_since]:
                with self._lock:
                    worker.down_since = down_since
            case ["log", name, level, message, event]:
                fields = {"role": pool.role.name, "event": event}
                logging.getLogger(name).log(level, "%s", message, extra=fields)
            case ["ready", info]:
                self._take_ready(pool, worker, info)
            case ["refused", kind, message]:
                self._fail(pool, f"{kind}: {message}")

    def _take_ready(self, pool: Pool, worker: Worker, info: dict[str, Any]) -> None:
        wrong = pool.role.differs(pool.info, info) if pool.info and pool.role.differs is not None else ""
        if wrong:  # before it is given anything
            self._fail(pool, wrong)
            return
        with self._lock:
            pool.info = info
            worker.ready = True
            pool.hand_out()
        self._tell(self._on_change, pool.role.name)

    def _pass_on(self, pool: Pool, worker: Worker, unit_id: int, piece: Any) -> None:
        with self._lock:
            wanted = pool.ledger.handed_out(worker, unit_id)
        if wanted and self._on_piece is not None:
            self._tell(self._on_piece, unit_id, piece)

    def _finish(self, pool: Pool, worker: Worker, outcome: Outcome) -> None:
        with self._lock:
            unit = pool.ledger.finish(worker, outcome.unit_id)
            pool.deaths_in_a_row = 0
            pool.hand_out()
        if unit is not None:
            self._tell(self._on_outcome, pool.role.name, outcome)

    def _bury(self, pool: Pool, worker: Worker) -> None:
        while not worker.eof and worker.channel.pipe.poll():
            self._read(pool, worker)
        self._watched.unregister(worker.process.sentinel)
        if not worker.eof:
            self._watched.unregister(worker.channel.pipe)
        with self._lock:  # out of the pool first: nobody may look at, or give work to, what is closed
            pool.workers.remove(worker)
            pool.legacies.append(worker.spending)
            lost = pool.ledger.died(worker)
            pool.hand_out()
        cause = _cause(worker.end())
        if self._deadline is None and pool.error is None:
            text = "%s: a worker died (%s); its work is given out again"
            logger.warning(text, pool.role.name, cause, extra={"event": "worker-died"})
            for unit in lost:
                fate: Literal["broken", "killed"] = "broken" if unit.once else "killed"
                self._tell(self._on_outcome, pool.role.name, Outcome(unit.unit_id, fate, error=cause))
            if not all(unit.once for unit in lost):  # the cause is found and out of the way
                pool.deaths_in_a_row = 0
            self._count_death(pool, f"died again and again, last by {cause}")

    def _count_death(self, pool: Pool, reason: str) -> None:
        pool.deaths_in_a_row += 1
        if pool.deaths_in_a_row > self._config.max_restarts:
            self._fail(pool, f"the {pool.role.name} {reason}; reopen the store to try again")
            return
        pause = min(MAX_BACKOFF_S, self._config.restart_backoff_s * 2 ** (pool.deaths_in_a_row - 1))
        with self._lock:
            pool.restarts += 1
            if self._deadline is None:
                pool.start_at.append(time.monotonic() + pause)

    def _fail(self, pool: Pool, error: str) -> None:
        """Give the pool up: tell so of all its work, which none of its workers touches any more."""
        logger.error("%s: stays down: %s", pool.role.name, error, extra={"event": "worker-down"})
        with self._lock:
            pool.error = error
            pool.start_at = []
            for worker in pool.workers:
                worker.process.kill()
            lost = pool.ledger.give_up()
        self._tell(self._on_change, pool.role.name)
        for unit in lost:
            self._tell(self._on_outcome, pool.role.name, Outcome(unit.unit_id, "down", error=error))

    def _tell(self, callback: Callable[..., None], *news: object) -> None:
        try:
            callback(*news)
        except Exception:  # the thread's edge: whoever is told must not end it, and all other work with it
            logger.exception("the receiver of %s failed; going on", news)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        self._check_at = now + CHECK_EVERY_S
        late = self._deadline is not None and now >= self._deadline
        for pool in self._pools.values():
            with self._lock:
                overdue = pool.overdue(self._config, now)
            for worker in overdue:
                text = "%s: a worker is silent past its time limit; killing it"
                logger.warning(text, pool.role.name, extra={"event": "worker-silent"})
                worker.process.kill()
            if late:
                for worker in pool.workers:
                    worker.process.kill()


def _cause(exitcode: int | None) -> str:
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"
