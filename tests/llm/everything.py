"""A program that does everything at once until it is killed: ``python -m tests.llm.everything STORE NOTES SEED URL``.

It has vectors made again by another model than that of the seed before, adds pages one by one and in bulk, forgets
some, and has what is owed repaid all the while. Its NOTES: ``+ USER PAGE_ID`` once ``add`` has returned; ``- PAGE_ID``
before ``forget`` is called, ``= PAGE_ID`` once it has returned.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from mos_pipeline.errors import DeadlineError
from tests.support import open_fake, page_text

__all__ = ["SETTINGS", "USERS", "dimension_of", "main"]

USERS = ("tom", "ann", "lea")
SETTINGS: dict[str, Any] = {
    "llm__provider": "openai",
    "llm__api_key": "sk-none",
    "llm__timeout_s": 1.0,
    "llm__deadline_s": 1.0,
    "llm__repay_interval_s": 0.05,
    "llm__bulk_tokens": 1500,
    "llm__bulk_wait_s": 0.3,
    "long_term__promotion_pages": 9,
    "embedding__fake_ms_per_text": 1.0,
    "store__journal_bytes": 65536,
    "store__segment_bytes": 65536,
    "store__flush_interval_s": 0.02,
}


def dimension_of(seed: int) -> int:
    """Return the dimension of the model that the program with this seed uses."""
    return (384, 500)[seed % 2]


def main(store: Path, notes: Path, seed: int, url: str) -> None:
    """Add and forget pages until somebody ends this process."""
    rng, number, known = random.Random(seed), seed * 10_000, list[str]()
    out = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    settings = {**SETTINGS, "embedding__fake_dimension": dimension_of(seed)}
    with open_fake(store, llm__base_url=url, reembed=True, **settings) as memory:

        def added(user: str, page_id: str | None) -> None:
            os.write(out, f"+ {user} {page_id}\n".encode())
            known.append(str(page_id))

        while True:
            user = rng.choice(USERS)
            if rng.random() < 0.3:
                texts = [page_text(number + more) for more in range(rng.choice((18, 90)))]
                pages = [{"user_id": user, "user_input": said, "agent_response": answered} for said, answered in texts]
                for one in memory.add_batch(pages):
                    added(user, one.page_id)
                number += len(pages)
            else:
                for _ in range(rng.choice((1, 9, 12))):
                    added(user, memory.add(user, *page_text(number)))
                    number += 1
            for _ in range(rng.choice((0, 0, 1, 3))):
                page_id = known.pop(rng.randrange(len(known)))
                os.write(out, f"- {page_id}\n".encode())
                memory.forget(page_id=page_id)
                os.write(out, f"= {page_id}\n".encode())
            with contextlib.suppress(DeadlineError):
                memory.wait_idle(rng.choice((0.01, 0.3)))
            if rng.random() < 0.1:
                with contextlib.suppress(DeadlineError):
                    memory.compact(0.5)
            time.sleep(rng.random() * 0.3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
