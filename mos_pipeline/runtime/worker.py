"""A child process: one stage, one queue in, one pipe out.

The worker reads msgpack ``[unit_id, kind, payload]``, one or several a message, from its queue, and writes msgpack
reports to its pipe:

    ["ready", info]                     prepared; info is the stage's own
    ["refused", error type, message]    could not get ready: it will not be restarted
    ["started", [unit_id, …]]           these, and no others, are being worked on now: the ones to blame for a death
    ["piece", unit_id, piece]           a part of its result, before that is whole
    ["done", unit_id, result]
    ["failed", unit_id, message]        the work was refused; the worker is well
    ["meter", told]                     calls made to a model since the last of these, see ``Meter.take``
    ["endpoint", since]                 the model's endpoint has been down since then, seconds since 1970; nil: it is up
    ["log", logger, level, message, event]

A unit of kind WITHDRAW has the id of one that nobody waits for any more; it comes where the role ``cancels`` such work.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.queues import Queue
from typing import Any, Protocol, runtime_checkable

from mos_pipeline.errors import MosError
from mos_pipeline.messages import decode_all, encode
from mos_pipeline.runtime.channel import STOP, WorkerEnd

__all__ = ["WITHDRAW", "PatientStage", "Report", "Stage", "run_worker"]

WITHDRAW = "withdraw"


class Report(Protocol):
    """Where a stage tells what became of its work; every call sends one message to the main process."""

    def started(self, unit_ids: Sequence[int]) -> None:
        """Say that these units, and no others, are being worked on from now on."""

    def piece(self, unit_id: int, piece: Any) -> None:
        """Hand out a msgpack-able part of a unit's result, as soon as it is there."""

    def done(self, unit_id: int, result: Any) -> None:
        """Hand in a unit's msgpack-able result."""

    def failed(self, unit_id: int, message: str) -> None:
        """Say why a unit could not be done, by a worker that is well."""

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell what ``Meter.take`` returned; nothing is sent where that is nothing."""

    def endpoint(self, down_since: float | None) -> None:
        """Say since when, in seconds since 1970, a model's endpoint has been down; None where it is up again."""


class Stage(Protocol):
    """Work without a process around it: the worker's loop drives it, and so can a test."""

    def prepare(self) -> dict[str, Any]:
        """Load what is needed; return what the main process should know (msgpack-able).

        Raises:
            MosError: it can't work here (model not found, store unusable); restarting would not help.
        """
        ...

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        """Take one piece of work; must be quick."""
        ...

    @property
    def pending(self) -> bool:
        """Is there accepted work that is not done?"""
        ...

    def step(self, report: Report) -> None:
        """Do a little of the pending work (one batch, one task) and report it."""
        ...

    def close(self) -> None:
        """Let go of files and memory."""
        ...


@runtime_checkable
class PatientStage(Stage, Protocol):
    """A stage with work in others' hands: its ``step`` waits for what comes of it, or for something to accept."""

    def watch(self, descriptor: int | None) -> None:
        """Have ``step`` return when ``descriptor`` can be read; None when nothing will be accepted any more."""
        ...


class _PipeReport:
    """Reports over the worker's pipe; a lock, since log records come from any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        data = encode(message)
        with self._lock:
            while data:
                data = data[os.write(self._pipe.fileno(), data) :]

    def started(self, unit_ids: Sequence[int]) -> None:
        self.send("started", list(unit_ids))

    def piece(self, unit_id: int, piece: Any) -> None:
        self.send("piece", unit_id, piece)

    def done(self, unit_id: int, result: Any) -> None:
        self.send("done", unit_id, result)

    def failed(self, unit_id: int, message: str) -> None:
        self.send("failed", unit_id, message)

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        if told:
            self.send("meter", told)

    def endpoint(self, down_since: float | None) -> None:
        self.send("endpoint", down_since)


class _PipeHandler(logging.Handler):
    """Hands the worker's log records to the main process, which logs them under the same names."""

    def __init__(self, report: _PipeReport) -> None:
        super().__init__(logging.INFO)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", ""))
        self._report.send("log", record.name, record.levelno, self.format(record), event)


def run_worker(build: Callable[..., Stage], args: tuple[Any, ...], end: WorkerEnd) -> None:
    """Run a worker's life, the target of a child process: get ready, work, stop when told or when the parent dies."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's, to the whole group; the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # one that the parent ignores is inherited, and its exit sends it
    threading.Thread(target=_die_with_parent, name="mos-lifeline", daemon=True).start()
    report = _PipeReport(end.pipe)
    logger = logging.getLogger("mos_pipeline")
    logger.addHandler(_PipeHandler(report))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        _live(build, args, end, report)
    except Exception:  # the process's edge: say why before dying of it; the main process starts a new one
        logger.exception("%s: died of an unexpected error", multiprocessing.current_process().name)
        raise


def _live(build: Callable[..., Stage], args: tuple[Any, ...], end: WorkerEnd, report: _PipeReport) -> None:
    try:
        stage = build(*args)
        info = stage.prepare()
    except MosError as error:
        report.send("refused", type(error).__name__, str(error))
        return
    report.send("ready", info)
    if isinstance(stage, PatientStage):
        stage.watch(end.incoming)
    try:
        _work(stage, end.queue, report)
    finally:
        stage.close()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        # At once, without clean-up: what this process had is given out again by the next owner.
        os._exit(0)


def _work(stage: Stage, queue: Queue[bytes], report: Report) -> None:
    """Accept all that waits, do one step, and again; block only where there is nothing to do."""
    stopping = False
    while not (stopping and not stage.pending):
        while not stopping and (not stage.pending or not queue.empty()):
            message = queue.get()
            if message == STOP:
                stopping = True
                if isinstance(stage, PatientStage):
                    stage.watch(None)
            else:
                for unit in decode_all(message):
                    stage.accept(*unit)
        if stage.pending:
            stage.step(report)
