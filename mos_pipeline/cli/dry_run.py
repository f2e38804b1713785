"""``ingest --dry-run``: what would be accepted, and what left out, of whose."""

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
    from mos_pipeline.ingest import Reading, SourceFile

__all__ = ["dry_run"]

SHOWN = 20


def dry_run(
    sources: Sequence[SourceFile], reading: Reading, left_out: LeftOut, signals: Signals, *, as_json: bool
) -> ExitCode:
    """Count the records of all sources as an empty store would take them, and print that."""
    users, ids = Counter[str](), set[str]()
    for source in sources:
        try:
            _count(source, reading, left_out, signals, users, ids)
        except RecordError:
            raise
        except InputError as error:
            left_out.rest_of(error)
    summary, left = left_out.summary, dict(sorted((+reading.tally).items()))
    if as_json:
        print_json({"accepted": users.total(), "left_out": summary.left_out, "left_on_purpose": left, "users": users})
    else:
        print(table([*_rows(users, summary.left_out), *(("not taken", f"{n:,} {name}") for name, n in left.items())]))
    return summary.code


def _count(
    source: SourceFile, reading: Reading, left_out: LeftOut, signals: Signals, users: Counter[str], ids: set[str]
) -> None:
    from mos_pipeline.messages import check_size, encode

    for item in source.items(reading):
        signals.check()
        if isinstance(item, RecordError):
            left_out.record(item)
            continue
        try:
            check_size(item.user_id, len(encode([*item[:7]])), reading.max_page_bytes)
        except InputError as error:
            left_out.record(refused(item, error))
            continue
        if item.page_id is None or item.page_id not in ids:  # a known id is the page that has it
            users[item.user_id] += 1
        if item.page_id is not None:
            ids.add(item.page_id)


def _rows(users: Counter[str], left_out: int) -> list[tuple[str, str]]:
    rows = [("would be accepted", f"{users.total():,} pages of {len(users):,} users"), ("left out", f"{left_out:,}")]
    rows += [(f"  {clean(user):.60}", f"{count:,}") for user, count in users.most_common(SHOWN)]
    if len(users) > SHOWN:
        rows.append(("  …", f"{len(users) - SHOWN:,} more users; --json tells all"))
    return rows
