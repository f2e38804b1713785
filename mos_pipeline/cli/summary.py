"""What became of the records of an ingestion."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.output import as_bytes, counted

__all__ = ["Summary"]


@dataclass(slots=True)
class Summary:
    """``accepted`` and ``already_there`` add up to ``read``; ``left_out`` come on top.

    Attributes:
        passed_bytes: how much of the files was not read again, since its records are in the store.
        left_out: records that could not be taken; files that could not be read to their end count as one.
        quarantine: the file they were written to.
        left_on_purpose: what the formats leave out, by its name: messages of tools, say.
    """

    store: str
    read: int = 0
    accepted: int = 0
    already_there: int = 0
    passed_bytes: int = 0
    left_out: int = 0
    quarantine: str | None = None
    left_on_purpose: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    pages_per_second: float = 0.0
    backlog_pages: int = 0
    set_aside: int = 0

    @property
    def code(self) -> ExitCode:
        """The exit code of a run that came to its end."""
        return ExitCode.LEFT_OUT if self.left_out else ExitCode.OK

    def finish(self, seconds: float) -> None:
        """Note how long it took."""
        self.seconds = round(seconds, 3)
        self.pages_per_second = round(self.accepted / max(self.seconds, 0.001), 1)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Return what people read."""
        rows = [
            ("pages read", f"{self.read:,}"),
            ("accepted", f"{self.accepted:,}"),
            ("already there", f"{self.already_there:,}"),
        ]
        if self.passed_bytes:
            rows.append(("passed over", f"{as_bytes(self.passed_bytes)} whose pages are there"))
        rows += self._rows_of_others()
        return [
            *rows,
            ("seconds", f"{self.seconds:,.1f}"),
            ("pages/s", f"{self.pages_per_second:,.0f}"),
            ("store", self.store),
        ]

    def _rows_of_others(self) -> list[tuple[str, str]]:
        rows = []
        if self.left_out:
            where = f"; see {self.quarantine}, mend it and ingest it" if self.quarantine else ""
            rows.append(("LEFT OUT", f"{counted(self.left_out, 'record')} that can't be taken{where}"))
        rows += [("not taken", f"{count:,} {name}") for name, count in self.left_on_purpose.items()]
        if self.backlog_pages:
            rows.append(("backlog", f"{self.backlog_pages:,} pages wait for the model"))
        if self.set_aside:
            rows.append(("set aside", f"{self.set_aside:,} pages no worker could work on; see: mos-pipeline stats"))
        return rows
