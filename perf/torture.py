"""Kills at random moments under load: ``python -m perf torture --runs N``.

A process of its own (``load.py``) adds pages, and closes and opens its store now and then. Some of its workers are
killed on the way, one or all of them; then the process itself, alone or with all its children: at once, or a moment
later. The store is opened, and what is there is compared with what ``add`` had returned. After some runs everything is
worked off and verified, and a new store is begun. Ends with 1 where a page was lost, is there twice or out of order.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from mos_pipeline import MemoryPipeline
from perf.load import SETTINGS, THREADS
from perf.machine import ROOT
from perf.options import Options
from perf.processes import CpuShare, family
from perf.result import BenchResult, Figure, at_most
from perf.telling import begun, tell

__all__ = ["Tally", "compare", "main"]

LIFE = 20  # runs of one store
START_S = 60.0
END_S = 60.0
POLL_S = 0.01
IDLE_S = 600.0
BATCH = 1000

Pages = Mapping[str, Sequence[str]]  # by user, the ids in order


@dataclass(slots=True)
class Tally:
    """What has come of all runs; ``unnoted`` are pages that were there though their ``add`` had not returned."""

    runs: int = 0
    workers_killed: int = 0
    accepted: int = 0
    lost: int = 0
    twice: int = 0
    out_of_order: int = 0
    unnoted: int = 0
    problems: list[str] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Return them as figures; what must be 0 has that as its aim."""
        none = (at_most(0),)
        return [
            Figure("kills of the owner", "", self.runs, self.runs, note=f"{self.workers_killed} workers before"),
            Figure("accepted", "pages", self.runs, self.accepted, note=f"{self.unnoted} more were on their way"),
            Figure("lost", "pages", self.runs, self.lost, aims=none),
            Figure("there twice", "pages", self.runs, self.twice, aims=none),
            Figure("out of order", "pages", self.runs, self.out_of_order, aims=none),
            Figure("other problems", "", self.runs, len(self.problems), aims=none, note="; ".join(self.problems[:3])),
        ]


def compare(accepted: Pages, found: Pages, tally: Tally) -> None:
    """Add to ``tally`` what ``found`` lacks of ``accepted``, has twice, has elsewhere, and has beyond it."""
    for user in {*accepted, *found}:
        wanted, there = accepted.get(user, ()), found.get(user, ())
        counts, known = Counter(there), set(wanted)
        tally.lost += sum(page not in counts for page in wanted)
        tally.twice += sum(count - 1 for count in counts.values())
        tally.unnoted += sum(page not in known for page in counts)
        places = {page: place for place, page in enumerate(wanted)}
        order = [places[page] for page in dict.fromkeys(there) if page in places]
        tally.out_of_order += sum(before > after for before, after in pairwise(order))


def main(arguments: Sequence[str]) -> int:
    """Run it, print what came of it, and return 1 where anything was lost, twice or out of order, else 0."""
    parser = argparse.ArgumentParser(prog="python -m perf torture", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where stores are made, and removed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    given = parser.parse_args(arguments)
    report, tally, share = begun(given), Tally(), CpuShare()
    rng = random.Random(given.seed)  # noqa: S311 (nothing is kept secret by it)
    while tally.runs < given.runs:
        with Options(folder=given.dir).store() as store:
            _life(store, rng, tally, min(LIFE, given.runs - tally.runs))
    result = BenchResult("torture", dict(SETTINGS), tally.figures(), share.others())
    return int(tell(report, [result], given.json))


def _life(store: Path, rng: random.Random, tally: Tally, runs: int) -> None:
    """Torture one store, then have everything worked off, and look at it once more."""
    accepted: dict[str, list[str]] = {}
    for _ in range(runs):
        tally.runs += 1
        notes = store.with_name(f"notes{tally.runs}")
        with _load(store, notes, rng.randrange(1 << 30)) as process:
            _strike(process, notes, rng, tally)
            for line in notes.read_text("utf-8").splitlines() if notes.exists() else ():
                user, page_id = line.split()
                accepted.setdefault(user, []).append(page_id)
                tally.accepted += 1
            if (store / "MANIFEST").exists():
                accepted = _check(store, accepted, tally)
        print(f"\r{tally.runs} kills, {tally.accepted} pages", end="", file=sys.stderr, flush=True)
    if accepted:
        _check(store, accepted, tally, whole=True)
    print(file=sys.stderr)


@contextmanager
def _load(store: Path, notes: Path, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the load in a session of its own; at the end all its processes are gone."""
    with notes.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (this interpreter, our own module)
            [sys.executable, "-m", "perf.load", str(store), str(notes), str(seed)],
            cwd=ROOT,
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_S)


def _strike(process: subprocess.Popen[bytes], notes: Path, rng: random.Random, tally: Tally) -> None:
    """Kill some workers, then the owner: most times at work, now and then while it starts."""
    deadline = time.monotonic() + START_S
    if rng.random() < 0.85:
        while not _is_at_work(notes) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        time.sleep(rng.random() * 0.5)
        workers = family(process.pid)[1:]
        for pid in workers if rng.random() < 0.2 else rng.sample(workers, min(1, len(workers))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                tally.workers_killed += 1
    time.sleep(rng.random() ** 2)
    if process.poll() is not None:
        tally.problems.append(f"the load ended by itself with {process.returncode}: see {notes.with_suffix('.log')}")
    if rng.random() < 0.5:
        os.killpg(process.pid, signal.SIGKILL)
    else:  # its children end by themselves, while the next owner comes
        process.kill()
    process.wait(END_S)


def _is_at_work(notes: Path) -> bool:
    return notes.exists() and notes.stat().st_size > 0


def _check(store: Path, accepted: Pages, tally: Tally, *, whole: bool = False) -> dict[str, list[str]]:
    """Open the store and compare; return what is there, which is what the next run builds on."""
    unnoted = tally.unnoted
    with MemoryPipeline.open(store, workers=whole, **SETTINGS) as memory:
        if whole:
            memory.wait_idle(IDLE_S)
        found = {user: list(_pages(memory, user)) for user in memory.users()}
        compare(accepted, found, tally)
        stats = memory.stats()
        told = [*stats.damage, *(f"set aside: {reason}" for reason in stats.set_aside.values())]
        if whole:
            told += [
                f"{problem.path}, offset {problem.offset}: {problem.reason}" for problem in memory.verify().problems
            ]
    if tally.unnoted - unnoted > THREADS:
        told.append(f"{tally.unnoted - unnoted} pages are there that nobody added")
    tally.problems += told
    return found


def _pages(memory: MemoryPipeline, user: str) -> Iterator[str]:
    offset = 0
    while batch := memory.pages(user, offset=offset, limit=BATCH):
        yield from (page.page_id for page in batch)
        offset += len(batch)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
