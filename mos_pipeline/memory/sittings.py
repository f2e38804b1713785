"""Sittings of a dialogue: neighbouring pages that were spoken in one go.

Where the source names its sittings (``metadata["session"]``, say), those are taken: a page belongs to another one than
the page before it where the names differ. Where neither page has a name, a gap in time between the two begins a new
sitting; a timestamp that can't be read begins none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mos_pipeline.memory.moments import moment

__all__ = ["Sitting", "next_sitting"]

HOUR_S = 3600.0


class Sitting(NamedTuple):
    """The sitting of one page, with what the next page is compared with.

    Attributes:
        number: counts the sittings of a scope from 0; never descends.
        name: the source's own name for it, any value that metadata may hold; None where it has none.
        time: the latest moment known in the sitting, POSIX seconds; None where no timestamp could be read.
    """

    number: int
    name: Any
    time: float | None


def next_sitting(
    before: Sitting | None, timestamp: str, metadata: Mapping[str, Any] | None, *, key: str, gap_hours: float
) -> Sitting:
    """Return the sitting of a page.

    Args:
        before: that of the page before it in its scope; None for the first page.
        timestamp: the page's, in any form.
        metadata: the page's.
        key: where in the metadata a source names its sittings.
        gap_hours: from this distance in time on, to either side, unnamed neighbours belong to two sittings.
    """
    name = (metadata or {}).get(key)
    found = moment(timestamp)
    time = found.timestamp() if found is not None else None
    if before is None:
        return Sitting(0, name, time)
    if name is not None or before.name is not None:
        begins = name != before.name
    else:
        begins = time is not None and before.time is not None and abs(time - before.time) >= gap_hours * HOUR_S
    if begins:
        return Sitting(before.number + 1, name, time)
    return Sitting(before.number, name, before.time if time is None else time)
