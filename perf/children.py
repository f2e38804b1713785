"""Processes of the harness: asked and answering by lines of JSON on their standard input and output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from perf.machine import ROOT

__all__ = ["Child", "serve"]

END_S = 30.0


class Child:
    """A fresh interpreter that runs ``perf.<module>``; use it as a context manager.

    ``environment`` is added to this process's own.

    Attributes:
        started: monotonic seconds, the same clock in all processes, of the moment before it was started.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.started = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 (this interpreter, our own module)
            [sys.executable, "-m", f"perf.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have it do ``what`` and return its answer.

        Raises:
            RuntimeError: it ended instead; it has told why on standard error.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(
                f"the process for {what!r} ended with code {self._process.wait()}; see its message above"
            )
        return json.loads(answer)

    def kill(self) -> None:
        """Kill it with SIGKILL; its own children find out by themselves."""
        self._process.kill()
        self._end()

    def _end(self) -> None:
        self._process.communicate(timeout=END_S)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return  # killed
        try:
            self._end()  # the end of its input is its sign to stop
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def serve(commands: Mapping[str, Callable[..., Any]]) -> None:
    """Answer the parent's questions until it closes its end."""
    for line in sys.stdin:
        what, arguments = json.loads(line)
        print(json.dumps(commands[what](**arguments)), flush=True)
