"""A child process: one stage, one queue in, one pipe out.

The worker reads msgpack ``[unit_id, kind, payload]`` from its queue and writes msgpack reports to its pipe:

    ["ready", info]                     prepared; info is the stage's own
    ["refused", error type, message]    could not get ready: it will not be restarted
    ["started", [unit_id, …]]           these are being worked on now: the ones to blame for a death
    ["done", unit_id, result]
    ["failed", unit_id, message]        the work was refused; the worker is well
    ["log", logger, level, message]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Report", "Stage"]


class Report(Protocol):
    """Where a stage tells what became of its work; every call sends one message to the main process."""

    def started(self, unit_ids: Sequence[int]) -> None:
        """Say that these units are being worked on from now on."""

    def done(self, unit_id: int, result: Any) -> None:
        """Hand in a unit's msgpack-able result."""

    def failed(self, unit_id: int, message: str) -> None:
        """Say why a unit could not be done, by a worker that is well."""


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
