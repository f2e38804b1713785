"""A store's owner in a process of its own, which can be killed at any moment, and what it shows."""

from __future__ import annotations

import pickle
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline, Page
from mos_pipeline.messages import Knowledge, Session

__all__ = ["ROOT", "Owner", "View", "look"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class View:
    """All that the library shows of one user and assistant."""

    pages: list[Page]
    sessions: list[Session]
    facts: list[Knowledge]
    profile: str
    overviews: list[str]

    def texts(self) -> list[str]:
        """Every text in it."""
        texts = [text for page in self.pages for text in (page.user_input, page.agent_response)]
        texts += [text for session in self.sessions for text in (session.summary, *session.keywords)]
        return [*texts, *(fact.text for fact in self.facts), self.profile, *self.overviews]


def look(memory: MemoryPipeline, user: str, assistant: str) -> View:
    """Return what the library shows of a user and an assistant."""
    named = {"assistant_id": assistant, "limit": 1000}
    facts = [fact for about in ("user", "assistant") for fact in memory.knowledge(user, about=about, **named)]  # type: ignore[arg-type]
    state = memory._engine.state
    scope = state.find(user, assistant)
    overviews = [] if scope is None else [state.chains.overview(seq) for seq in state.pages.seqs_of(scope.number)]
    return View(
        memory.pages(user, **named),  # type: ignore[arg-type]
        memory.sessions(user, **named),  # type: ignore[arg-type]
        facts,
        memory.profile(user, assistant_id=assistant).text,
        [text for text in overviews if text],
    )


class Owner:
    """The process, seen from the test; any method of a pipeline can be called on it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._begin()

    def _begin(self) -> None:
        command = [sys.executable, "-m", "tests.laws.server"]
        pipe, log = subprocess.PIPE, subprocess.DEVNULL  # its workers complain when it is killed
        self._process = self._stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log)
        )

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._stack.close()

    def ask(self, name: str, *args: Any, **named: Any) -> None:
        """Have a method called, and don't wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(pickle.dumps((name, args, named)))
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return what the method that was asked for returned."""
        assert self._process.stdout is not None
        result, error = pickle.load(self._process.stdout)
        if error is not None:
            raise error
        return result

    def call(self, name: str, *args: Any, **named: Any) -> Any:
        """Call a method of the pipeline, or one of ``open``, ``look`` and ``check``."""
        self.ask(name, *args, **named)
        return self.answer()

    def kill(self) -> None:
        """End the process without a warning."""
        self._process.kill()
        self._stack.close()

    def restart(self) -> None:
        """Kill the process, and begin another."""
        self.kill()
        self._begin()
