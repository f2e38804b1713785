"""Accepting many pages at once, as files are read: each is answered for, and flushed once for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from mos_pipeline.engine.intake import Intake
from mos_pipeline.errors import InputError, MosError
from mos_pipeline.messages import Added, PageRecord

__all__ = ["add_batch"]


def add_batch(
    intake: Intake, records: Iterable[Callable[[], PageRecord]], wait_s: float | None, *, stop: bool
) -> list[Added]:
    """Accept what each of ``records`` returns, and return what became of it; see ``MemoryPipeline.add_batch``."""
    found: list[Added] = []
    deadline = None if wait_s is None else time.monotonic() + wait_s
    for record in records:
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            found.append(Added(*intake.add_once(record(), left)))
        except InputError as error:
            found.append(Added(None, new=False, refused=str(error)))
            if stop:
                break
        except MosError:
            if not found:
                raise
            break  # whoever adds the rest again is told
    intake.confirm()
    return found
