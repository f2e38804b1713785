"""A stage that does to its process what its units tell it to; it runs in real children."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from mos_pipeline.errors import ModelNotFoundError
from mos_pipeline.messages import encode
from mos_pipeline.runtime.worker import Report

__all__ = ["WAYS_TO_DIE", "Toy"]

WAYS_TO_DIE = ("SIGKILL", "SIGSEGV", "exit 0", "exit 1", "exception")
FOREVER_S = 3600.0


def die(how: str) -> None:
    if how == "exception":
        raise RuntimeError("the toy broke")
    if how.startswith("exit"):
        os._exit(int(how.removeprefix("exit ")))
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(FOREVER_S)


def first_time(marker: str) -> bool:
    """Return whether no process has come by before; ``marker`` is a path, made now."""
    path = Path(marker)
    if path.exists():
        return False
    path.touch()
    return True


class Toy:
    """``at_start`` is "well", "refuse", "hang", "raise" or a way to die; ``note`` gets a line a finished unit."""

    def __init__(self, at_start: str = "well", note: str = "") -> None:
        self._at_start = at_start
        self._note = note
        self._waiting: deque[tuple[int, str, Any]] = deque()

    def prepare(self) -> dict[str, Any]:
        if self._at_start == "refuse":
            raise ModelNotFoundError("there is no such toy")
        if self._at_start == "hang":
            time.sleep(FOREVER_S)
        if self._at_start == "raise":
            raise RuntimeError("the toy can't be built")
        if self._at_start != "well":
            die(self._at_start)
        return {"pid": os.getpid(), "unguarded": hasattr(sys.modules["__main__"], "UNGUARDED")}

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        if kind == "hang in accept" and first_time(payload):
            time.sleep(FOREVER_S)
        self._waiting.append((unit_id, kind, payload))

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    def step(self, report: Report) -> None:
        unit_id, kind, payload = self._waiting.popleft()
        report.started([unit_id])
        if kind == "refuse":
            report.failed(unit_id, f"can't do {payload}")
            return
        if kind == "half a report":
            half_a_report(report, unit_id, payload)
        else:
            self._do(kind, payload)
        self._write(str(unit_id))
        report.done(unit_id, payload)
        if kind == "die after done":
            die("SIGKILL")

    def _do(self, kind: str, payload: Any) -> None:
        match kind:
            case "die":
                die(payload)
            case "die once":
                how, marker = payload
                if first_time(marker):
                    die(how)
            case "hang":
                if first_time(payload):
                    time.sleep(FOREVER_S)
            case "sleep":
                time.sleep(payload)
            case "log":
                for name, level, text in payload:
                    logging.getLogger(name).log(level, "%s", text)

    def _write(self, line: str) -> None:
        if self._note:
            with Path(self._note).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def close(self) -> None:
        self._write("closed")


def half_a_report(report: Report, unit_id: int, payload: Any) -> None:
    """The first time, send half of a result of so many bytes, past the report's own methods, and die."""
    how, size, marker = payload
    if first_time(marker):
        descriptor = report._pipe.fileno()  # type: ignore[attr-defined]
        message = encode(["done", unit_id, "x" * size])
        os.write(descriptor, message[: len(message) // 2])
        die(how)
