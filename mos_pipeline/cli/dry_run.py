"""``ingest --dry-run``: what would be accepted, what is there already, and what would be left out, of whose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mos_pipeline.cli.left_out import refused
from mos_pipeline.cli.output import clean, print_json, table
from mos_pipeline.errors import InputError, RecordError

if TYPE_CHECKING:
    from mos_pipeline.cli.exits import ExitCode
    from mos_pipeline.cli.left_out import LeftOut
    from mos_pipeline.cli.signals import Signals
    from mos_pipeline.ingest import Reading, SourceFile, SourceRecord
    from mos_pipeline.ingest.resume import Taken
    from mos_pipeline.pipeline import MemoryPipeline

__all__ = ["DryRun"]

SHOWN = 20


class DryRun:
    """Counts the records of sources as a store would take them."""

    def __init__(
        self, memory: MemoryPipeline | None, assistant: str, reading: Reading, left_out: LeftOut, signals: Signals
    ) -> None:
        """Count for what ``memory``, which was opened read-only, holds; for an empty store where it is None."""
        self._memory = memory
        self._assistant = assistant
        self._reading = reading
        self._left_out = left_out
        self._signals = signals
        self._known = {} if memory is None else memory.sources()
        self._owners: dict[str, tuple[str, str]] = {}  # of the ids met so far
        self._users = Counter[str]()

    def run(self, sources: Sequence[SourceFile], *, as_json: bool) -> ExitCode:
        """Count all records, and print that."""
        for source in sources:
            try:
                self._count(source)
            except RecordError:
                raise
            except InputError as error:
                self._left_out.rest_of(error)
        summary, left = self._left_out.summary, dict(sorted((+self._reading.tally).items()))
        summary.accepted = self._users.total()
        if as_json:
            counts = {name: getattr(summary, name) for name in ("accepted", "already_there", "left_out")}
            print_json({**counts, "left_on_purpose": left, "users": self._users})
        else:
            print(table([*self._rows(), *(("not taken", f"{count:,} {name}") for name, count in left.items())]))
        return summary.code

    def _count(self, source: SourceFile) -> None:
        from mos_pipeline.ingest import resumed

        for taken in resumed(source, self._reading, self._known, whole=True).taken:
            self._signals.check()
            if isinstance(taken.item, RecordError):
                self._left_out.record(taken.item)
                continue
            try:
                new = self._is_new(taken.item, taken)
            except InputError as error:
                self._left_out.record(refused(taken.item, error))
                continue
            if new:
                self._users[taken.item.user_id] += 1
            else:
                self._left_out.summary.already_there += 1

    def _is_new(self, record: SourceRecord, taken: Taken) -> bool:
        """Return whether a record would become a page.

        Raises:
            InputError: the store would refuse it.
        """
        from mos_pipeline.messages import check_size, encode

        if taken.mark is None:
            return False
        check_size(record.user_id, len(encode([*record[:7]])), self._reading.max_page_bytes)
        new = record.page_id is None or not self._has(record, record.page_id)
        self._known[taken.mark.digest] = taken.mark.ordinal + 1  # should the same file be named again
        return new

    def _has(self, record: SourceRecord, page_id: str) -> bool:
        mine = record.user_id, self._assistant if record.assistant_id is None else record.assistant_id
        page = self._memory.get(page_id) if self._memory is not None and page_id not in self._owners else None
        owner = self._owners.get(page_id) if page is None else (page.user_id, page.assistant_id)
        self._owners.setdefault(page_id, mine if owner is None else owner)
        if owner is not None and owner != mine:
            raise InputError(
                f"its id {page_id!r:.200} is that of a page of another user or assistant; give it an id of its own"
            )
        return owner is not None

    def _rows(self) -> list[tuple[str, str]]:
        users, summary = self._users, self._left_out.summary
        rows = [
            ("would be accepted", f"{users.total():,} pages of {len(users):,} users"),
            ("already there", f"{summary.already_there:,}"),
            ("left out", f"{summary.left_out:,}"),
        ]
        rows += [(f"  {clean(user):.60}", f"{count:,}") for user, count in users.most_common(SHOWN)]
        if len(users) > SHOWN:
            rows.append(("  …", f"{len(users) - SHOWN:,} more users; --json tells all"))
        return rows
