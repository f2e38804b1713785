"""A program that adds pages until it is killed: ``python -m tests.faults.driver STORE NOTES SEED [rest]``.

With ``rest`` it adds one burst and keeps the store open. Otherwise it opens the store, adds bursts for a random time,
closes it, and begins anew, so that it can be killed at any of these.
SIGUSR1 makes it leave at once with exit code 0.
Whatever ``add`` has returned stands in the file NOTES at once, a line ``user page_id`` each.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import open_fake, page_text

__all__ = ["main"]

USERS = 5
SMALL: dict[str, Any] = {  # so that files are begun and finished often
    "llm__processes": 1,
    "store__journal_bytes": 65536,
    "store__segment_bytes": 65536,
    "store__flush_interval_s": 0.1,
}
LENGTHS = [1] * 100 + [1000]  # now and then a page that is longer than a journal


def main(store: Path, notes: Path, seed: int, *, rest: bool) -> None:
    """Add pages until somebody ends this process."""
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    rng = random.Random(seed)
    number = seed * 1_000_000
    out = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while True:
        durability = rng.choice(("process", "process", "power"))
        with open_fake(store, store__durability=durability, **SMALL) as memory:
            stop = time.monotonic() + rng.choice((0.1, 0.4, 1.5, 1.5))
            while time.monotonic() < stop:
                for _ in range(rng.choice((1, 3, 9, 40))):
                    user = f"user{rng.randrange(USERS)}"
                    said, answer = page_text(number)
                    own_id = f"own{number}" if rng.random() < 0.3 else None
                    page_id = memory.add(user, said, answer * rng.choice(LENGTHS), page_id=own_id)
                    os.write(out, f"{user} {page_id}\n".encode())
                    number += 1
                time.sleep(3600 if rest else rng.random() * 0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), rest=sys.argv[4:] == ["rest"])
