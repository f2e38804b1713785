"""A process that owns a store, and does with it what the parent asks: ``python -m perf.owner STORE SETTINGS``.

The settings are JSON, by their keywords; the backend is the fake one unless they name another. Made to be killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from perf.children import serve
from perf.pipelines import wait_ready
from perf.processes import pss_bytes
from perf.texts import question, synthetic_pages

__all__ = ["main"]

BIG_USER = "user"
SMALL_USERS = 100
SMALL_SHARE = 10  # every tenth page is one of the small users'
TIMEOUT_S = 3600.0


class Owner:
    """An open store that grows."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._pipeline = MemoryPipeline.open(folder, **{"embedding__backend": "fake", **settings})
        self._pages = synthetic_pages(BIG_USER)
        self._added = 0

    def grow(self, pages: int) -> int:
        """Add pages until there are ``pages`` of them; return the number of pages the store has."""
        for number, page in enumerate(islice(self._pages, pages - self._added), self._added):
            if number % SMALL_SHARE == 0:
                page["user_id"] = f"small user {number // SMALL_SHARE % SMALL_USERS}"
            self._pipeline.add(**page)
        self._added = pages
        return self._pipeline.stats().pages

    def idle(self) -> int:
        """Wait until everything is worked off; return the memory of this process and its children, in bytes."""
        wait_ready(self._pipeline)
        self._pipeline.wait_idle(TIMEOUT_S)
        return pss_bytes(os.getpid())

    def first(self) -> dict[str, Any]:
        """Add a page, then search; return when each was done (monotonic), and how many pages there are."""
        page = next(self._pages)
        self._pipeline.add(**page)
        added = time.monotonic()
        found = self._pipeline.retrieve(BIG_USER, question(page), timeout=TIMEOUT_S)
        retrieved = time.monotonic()
        pages = self._pipeline.stats().pages
        return {"add": added, "retrieve": retrieved, "degraded": found.degraded, "pages": pages}

    def configuration(self) -> dict[str, Any]:
        """Return the pipeline's settings."""
        return self._pipeline._engine.config.as_dict()

    def close(self) -> None:
        """Close the store."""
        self._pipeline.close()


def main(folder: Path, settings: Mapping[str, Any]) -> None:
    """Own the store in ``folder``, opened with ``settings``, until the parent closes its end."""
    owner = Owner(folder, settings)
    try:
        serve({name: getattr(owner, name) for name in ("grow", "idle", "first", "configuration")})
    finally:
        owner.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
