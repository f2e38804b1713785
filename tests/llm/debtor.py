"""A program that asks an endpoint, and owes, until it is killed: ``python -m tests.llm.debtor STORE NOTES SEED URL``.

It adds bursts of pages, waits until they are worked off now and then, and has what is owed repaid all the while.
Whatever ``add`` has returned stands in the file NOTES at once, a line ``user page_id`` each.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from pathlib import Path

from mos_pipeline.errors import DeadlineError
from tests.support import open_fake, page_text

__all__ = ["SETTINGS", "USERS", "main"]

USERS = ("tom", "ann", "lea")
SETTINGS = {
    "llm__provider": "openai",
    "llm__api_key": "sk-none",
    "llm__timeout_s": 1.0,
    "llm__deadline_s": 1.0,
    "llm__repay_interval_s": 0.05,
    "long_term__promotion_pages": 9,
    "store__journal_bytes": 65536,
    "store__segment_bytes": 65536,
    "store__flush_interval_s": 0.02,
}


def main(store: Path, notes: Path, seed: int, url: str) -> None:
    """Add pages until somebody ends this process."""
    rng = random.Random(seed)
    number = seed * 1000
    out = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open_fake(store, llm__base_url=url, **SETTINGS) as memory:
        while True:
            for _ in range(rng.choice((1, 9, 12))):
                user = rng.choice(USERS)
                os.write(out, f"{user} {memory.add(user, *page_text(number))}\n".encode())
                number += 1
            with contextlib.suppress(DeadlineError):
                memory.wait_idle(rng.choice((0.01, 0.3)))
            if rng.random() < 0.1:
                with contextlib.suppress(DeadlineError):
                    memory.compact(0.5)
            time.sleep(rng.random() * 0.3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
