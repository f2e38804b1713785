"""What a data folder of the original MemoryOS holds, as neutral values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mos_pipeline.memory.takeover import Vector

__all__ = ["EXTRA", "LegacyAssistant", "LegacyFact", "LegacyPage", "LegacySession", "LegacyUser", "Problem"]

EXTRA = "memoryos"  # in a page's metadata here: further fields that it had there


class Problem(NamedTuple):
    """What can't be taken, and is left out.

    Attributes:
        file: the file, as a path below the data folder.
        field: where in it, as ``sessions.s1.details[2].user_input``; empty for the whole file.
        reason: what is wrong.
    """

    file: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field} {self.reason}" if self.field else f"{self.file}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LegacyPage:
    """A page; in short-term memory it has texts and timestamp alone.

    Attributes:
        page_id: empty in short-term memory.
        timestamp: empty where there is none.
        before: the id of the page that it continues; empty for none.
        after: the id of the page that continues it; empty for none.
        overview: ``meta_info``.
        extra: further fields that say anything, as they stand.
        place: file and field, for people.
    """

    user_input: str
    agent_response: str
    timestamp: str
    page_id: str = ""
    analyzed: bool = False
    before: str = ""
    after: str = ""
    overview: str = ""
    vector: Vector | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    place: tuple[str, str] = ("", "")

    @property
    def content(self) -> tuple[str, str, str]:
        """What tells it from others where there is no id."""
        return self.user_input, self.agent_response, self.timestamp


@dataclass(frozen=True, slots=True)
class LegacySession:
    """A session; ``last_visit`` in seconds since 1970, 0 where it is not known."""

    session_id: str
    summary: str
    keywords: tuple[str, ...]
    timestamp: str
    pages: tuple[LegacyPage, ...]
    visits: int = 0
    interactions: int = 0
    last_visit: float = 0.0
    accesses: int = 0
    vector: Vector | None = None
    place: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class LegacyFact:
    """A piece of knowledge."""

    text: str
    timestamp: str
    vector: Vector | None = None
    place: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class LegacyUser:
    """One user's folder; ``assistant_knowledge`` is what stands there of an assistant, mostly nothing."""

    user_id: str
    short: tuple[LegacyPage, ...] = ()
    sessions: tuple[LegacySession, ...] = ()
    profile: str = ""
    updated: str = ""
    knowledge: tuple[LegacyFact, ...] = ()
    assistant_knowledge: tuple[LegacyFact, ...] = ()


@dataclass(frozen=True, slots=True)
class LegacyAssistant:
    """One assistant's folder."""

    assistant_id: str
    knowledge: tuple[LegacyFact, ...] = ()
