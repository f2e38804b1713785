"""A program that owns a store until it is killed: ``python -m tests.readers.owner STORE NOTES FIRST``.

It adds numbered pages, forgets some, and compacts; NOTES says what came of it.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.readers.common import SETTINGS
from tests.readers.notes import Notes, known, user_of
from tests.support import open_fake, page_text

__all__ = ["main"]

OFTEN: dict[str, Any] = {**SETTINGS, "llm__processes": 1, "store__flush_interval_s": 0.05}


def main(store: Path, path: Path, first: int) -> None:
    """Work until somebody ends this process."""
    rng, notes, number = random.Random(first), Notes(path), first
    kept = sorted(known(path).accepted - known(path).forgetting)
    with open_fake(store, **OFTEN) as memory:
        while True:
            for _ in range(rng.choice((1, 3, 9))):
                memory.add(user_of(number), *page_text(number), page_id=f"page{number}", metadata={"number": number})
                notes.accepted(number)
                kept.append(number)
                number += 1
            for _ in range(rng.choice((0, 1, 2))):
                gone = kept.pop(rng.randrange(len(kept)))
                notes.forgetting(gone)
                memory.forget(page_id=f"page{gone}")
                notes.forgotten(gone)
            if rng.random() < 0.2:
                memory.compact(60)
            time.sleep(rng.random() * 0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
