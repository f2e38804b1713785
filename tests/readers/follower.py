"""A program that reads a store beside its owner: ``python -m tests.readers.follower STORE NOTES SEED [workers]``.

It refreshes and asks until its standard input ends, and it has done so a few times and met a compaction; it checks each
answer against NOTES, and then prints how often it has asked, and how many generations of segments it has met.
"""

from __future__ import annotations

import random
import select
import sys
from pathlib import Path

from mos_pipeline import MemoryPipeline
from tests.readers.common import open_reader
from tests.readers.notes import Known, known, user_of

__all__ = ["main"]

ASKED = 4  # pages after each refresh
ROUNDS = 4  # at least
PAUSE_S = 0.1  # between two of them: eight programs share the machine with their owner


def main(store: Path, notes: Path, seed: int, *, workers: bool) -> None:
    """Ask until there is no more standard input, and enough was met."""
    rng, rounds, compactions = random.Random(seed), 0, set[int]()
    with open_reader(store, workers=workers) as reader:
        while not select.select([sys.stdin], [], [], PAUSE_S)[0] or rounds < ROUNDS or len(compactions) < 2:
            before = known(notes)
            reader.refresh()
            compactions.add(reader._opened.store.manifest.generation)
            for number in rng.sample(sorted(before.accepted), min(ASKED, len(before.accepted))):
                check(reader, number, before, notes)
            if before.forgotten:
                check_gone(reader, rng.choice(sorted(before.forgotten)))
            rounds += 1
    sys.stdout.write(f"{rounds} {len(compactions)}\n")


def check(reader: MemoryPipeline, number: int, before: Known, notes: Path) -> None:
    """Ask for a page that was accepted before the refresh."""
    found = reader.retrieve(user_of(number), f"number{number}", k=3)
    numbers = {hit.page.metadata["number"] for hit in found.pages}
    latest = {page.metadata["number"] for page in found.short_term}
    if number not in known(notes).forgetting:
        assert found.pages[0].page.metadata["number"] == number, f"page {number} is not found, but {numbers}"
        assert reader.get(f"page{number}") == found.pages[0].page
    assert not (numbers | latest) & before.forgotten, f"forgotten pages are found: {numbers} or {latest}"
    assert {user_of(other) for other in numbers | latest} <= {user_of(number)}, "another user's pages are found"


def check_gone(reader: MemoryPipeline, number: int) -> None:
    """Look for a page that was forgotten before the refresh."""
    page_id = f"page{number}"
    assert reader.get(page_id) is None, f"{page_id} is still there"
    sessions = reader.sessions(user_of(number), limit=10_000)
    assert not [one for one in sessions if page_id in one.page_ids or f"number{number} " in one.summary]
    assert f"number{number} " not in reader.profile(user_of(number)).text


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), workers=sys.argv[4:] == ["workers"])
