"""What a data folder held, and what became of it, counted by kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mos_pipeline.legacy.history import History
from mos_pipeline.legacy.model import Problem

__all__ = ["Report"]


@dataclass(slots=True)
class Report:
    """Counts of what is in the store now, whether it came in this run or in one before.

    Attributes:
        users: those of whom something was taken.
        already_there: users of whom all was taken before.
        assistants: those whose knowledge was taken.
        pages_mid: pages of sessions.
        pages_short: the others.
        pages_accepted: those of both that came in this run.
        links: between pages.
        loose_links: links to pages that are not in the folder any more; they say nothing.
        repeated: facts that say what another one says, and are one with it; counted in a run that takes them over.
        reused: embeddings that were taken, in this run.
        made: embeddings that are made again, those of pages in the background.
        set_aside: what was left out, each by file and field.
    """

    users: int = 0
    already_there: int = 0
    assistants: int = 0
    pages_mid: int = 0
    pages_short: int = 0
    pages_accepted: int = 0
    sessions: int = 0
    links: int = 0
    loose_links: int = 0
    profiles: int = 0
    facts_user: int = 0
    facts_assistant: int = 0
    repeated: int = 0
    reused: int = 0
    made: int = 0
    set_aside: list[Problem] = field(default_factory=list)

    def count(self, history: History) -> None:
        """Count what a user's history holds; what the assistants' own files tell is not in it."""
        self.pages_mid += sum(page.in_mid_term for page in history.pages)
        self.pages_short += sum(not page.in_mid_term for page in history.pages)
        self.sessions += len(history.sessions)
        self.links += len(history.links.links)
        self.loose_links += history.links.loose
        self.profiles += bool(history.user.profile)
        self.facts_user += len(history.user.knowledge)
        self.facts_assistant += len(history.user.assistant_knowledge)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        aside = [problem._asdict() for problem in self.set_aside]
        return {**asdict(self), "set_aside": len(aside), "left_out": aside}

    def rows(self) -> list[tuple[str, str]]:
        """Return what people read."""
        before = f", {self.already_there:,} of them before" if self.already_there else ""
        loose = f", {self.loose_links:,} more lead to pages that are not there" if self.loose_links else ""
        return [
            ("users", f"{self.users:,}{before}"),
            ("assistants", f"{self.assistants:,}"),
            ("pages, mid-term", f"{self.pages_mid:,}"),
            ("pages, short-term", f"{self.pages_short:,}"),
            ("pages accepted", f"{self.pages_accepted:,}"),
            ("sessions", f"{self.sessions:,}"),
            ("links", f"{self.links:,}{loose}"),
            ("profiles", f"{self.profiles:,}"),
            ("facts of users", f"{self.facts_user:,}"),
            ("facts of assistants", f"{self.facts_assistant:,}"),
            ("facts that repeat one", f"{self.repeated:,}"),
            ("embeddings reused", f"{self.reused:,}"),
            ("embeddings made", f"{self.made:,}"),
            ("set aside", f"{len(self.set_aside):,}"),
        ]
