"""A program that adds pages until it is killed: ``python -m perf.load STORE NOTES SEED``.

It opens the store, adds bursts from some threads for a random time, closes it, and begins anew, so that it can be
killed at any of these. Whatever ``add`` has returned stands in the file NOTES at once, a line ``user page_id`` each.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mos_pipeline import MemoryPipeline
from perf.texts import synthetic_pages

__all__ = ["THREADS", "main"]

THREADS = 2
USERS = 4  # of each thread's own, so that their order of acceptance is known
SETTINGS: dict[str, Any] = {  # small, so that files are begun and finished often
    "embedding__backend": "fake",
    "runtime__restart_backoff_s": 0.01,
    "store__journal_bytes": 65536,
    "store__segment_bytes": 262144,
    "store__flush_interval_s": 0.1,
}
BURSTS = (1, 3, 9, 40)
LENGTHS = [1] * 200 + [300]  # now and then a page that is longer than a journal
SPANS_S = (0.2, 1.0, 3.0)
PAUSE_S = 0.1


def main(store: Path, notes: Path, seed: int) -> None:
    """Add pages until somebody ends this process."""
    rng = random.Random(seed)  # noqa: S311 (nothing is kept secret by it)
    out = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for opening in range(sys.maxsize):
        durability = rng.choice(("process", "process", "power"))
        with MemoryPipeline.open(store, store__durability=durability, **SETTINGS) as memory:
            stop = time.monotonic() + rng.choice(SPANS_S)
            threads = [
                threading.Thread(target=_add, args=(memory, out, f"{seed} {opening} {thread}", thread, stop))
                for thread in range(THREADS)
            ]
            for each in threads:
                each.start()
            for each in threads:
                each.join()


def _add(memory: MemoryPipeline, out: int, seed: str, thread: int, stop: float) -> None:
    rng = random.Random(seed)  # noqa: S311 (nothing is kept secret by it)
    pages = synthetic_pages("nobody", seed=rng.randrange(1 << 30))
    while time.monotonic() < stop:
        for _ in range(rng.choice(BURSTS)):
            page = next(pages)
            page["user_id"] = f"user{thread}-{rng.randrange(USERS)}"
            page["user_input"] *= rng.choice(LENGTHS)
            page_id = memory.add(**page)
            os.write(out, f"{page['user_id']} {page_id}\n".encode())
        time.sleep(rng.random() * PAUSE_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
