"""Is it flat? ``python -m perf soak --seconds S``.

One pipeline with the fake model, for as long as that: users come again and again, their pages of the last time are
forgotten, new ones are added, questions are asked, workers are killed, segments are compacted. So the store holds as
many pages all the time, and what it takes must not grow: memory of all processes, descriptors, blocks of shared memory
and files. What the last tenth of the time has (median) is compared with the first, which begins once every user has
been there. What grows as it must is told too: page numbers are never used again, which costs some bytes each.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mos_pipeline import MemoryPipeline
from perf.options import Options
from perf.pipelines import wait_ready
from perf.processes import CpuShare, disk_bytes, family, pss_bytes
from perf.result import BenchResult, Figure, Series, at_most
from perf.telling import begun, tell
from perf.texts import question, synthetic_pages
from perf.timing import median

__all__ = ["Sample", "compared", "main"]

USERS = 30
PAGES = 40  # of a user, each time
QUESTIONS = 3
SETTINGS: dict[str, Any] = {
    "embedding__backend": "fake",
    "runtime__restart_backoff_s": 0.01,
    "store__journal_bytes": 1 << 18,
    "store__segment_bytes": 1 << 20,
}
KILL_EACH_S = 4.0
IDLE_EACH = 5  # rounds
COMPACT_EACH = 30
SAMPLES = 200
TIMEOUT_S = 300.0
MIB = float(1 << 20)


class Sample(NamedTuple):
    """What the pipeline takes at one moment; bytes and counts, of all its processes together."""

    memory: int
    descriptors: int
    blocks: int
    store: int


_CURVES: tuple[tuple[str, str, str, float, Callable[[Sample], int]], ...] = (
    ("memory and store", "memory (PSS)", "MiB", MIB, lambda sample: sample.memory),
    ("memory and store", "store", "MiB", MIB, lambda sample: sample.store),
    ("descriptors and blocks", "descriptors", "", 1.0, lambda sample: sample.descriptors),
    ("descriptors and blocks", "blocks in /dev/shm", "", 1.0, lambda sample: sample.blocks),
)


@dataclass(slots=True)
class _Counts:
    """What was done."""

    added: int = 0
    asked: int = 0
    forgotten: int = 0
    killed: int = 0
    compacted: int = 0


class _Soak:
    """A pipeline that people come to."""

    def __init__(self, memory: MemoryPipeline, folder: Path) -> None:
        self._memory = memory
        self._folder = folder
        self._rng = random.Random(0)  # noqa: S311 (nothing is kept secret by it)
        self._streams = [synthetic_pages(f"user{number}", seed=number) for number in range(USERS)]
        self._round = 0
        self._kill_at = time.monotonic() + KILL_EACH_S
        self.counts = _Counts()

    def round(self, *, kill: bool = True) -> None:
        """Let one user come, be forgotten, and talk anew; others ask."""
        number = self._round % USERS
        self._round += 1
        self.counts.forgotten += self._memory.forget(f"user{number}")
        pages = list(islice(self._streams[number], PAGES))
        self.counts.added += self._memory.add_many(pages)
        for page in self._rng.choices(pages, k=QUESTIONS):
            self._memory.retrieve(page["user_id"], question(page))
            self.counts.asked += 1
        if kill and time.monotonic() > self._kill_at:
            self._kill_at = time.monotonic() + KILL_EACH_S
            self._kill()
        if self._round % IDLE_EACH == 0:
            self._memory.wait_idle(TIMEOUT_S)
        if self._round % COMPACT_EACH == 0:
            self._memory.compact(TIMEOUT_S)
            self.counts.compacted += 1

    def _kill(self) -> None:
        pids = [pid for worker in self._memory.stats().workers.values() for pid in worker.pids]
        for pid in pids if self._rng.random() < 0.2 else self._rng.sample(pids, min(1, len(pids))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.counts.killed += 1

    def sample(self) -> Sample:
        """Look at everything while nothing waits."""
        self._memory.wait_idle(TIMEOUT_S)
        wait_ready(self._memory)
        pids = family(os.getpid())
        blocks = len(list(Path("/dev/shm").glob(f"*mos-{os.getpid()}-*")))  # noqa: S108 (it is what is looked at)
        return Sample(pss_bytes(os.getpid()), sum(map(_descriptors, pids)), blocks, disk_bytes(self._folder)[1])


def _descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def compared(samples: Sequence[Sample]) -> list[Figure]:
    """Return the medians of the first and of the last tenth of ``samples``, and their ratios with their aims."""
    tenth = max(1, len(samples) // 10)
    first, last = samples[:tenth], samples[-tenth:]
    kinds: list[tuple[str, str, float, Callable[[Sample], int], float]] = [
        ("memory (PSS)", "MiB", MIB, lambda sample: sample.memory, 1.1),
        ("descriptors", "", 1.0, lambda sample: sample.descriptors, 1.05),
        ("blocks in /dev/shm", "", 1.0, lambda sample: sample.blocks, 1.0),
        ("store", "MiB", MIB, lambda sample: sample.store, 1.5),
    ]
    figures = []
    for name, unit, scale, of, limit in kinds:
        before, after = median(list(map(of, first))) / scale, median(list(map(of, last))) / scale
        figures += [
            Figure(f"{name}, first tenth", unit, tenth, before),
            Figure(f"{name}, last tenth", unit, tenth, after),
            Figure(f"{name}, last / first", "", tenth, after / before, aims=(at_most(limit),)),
        ]
    return figures


def main(arguments: Sequence[str]) -> int:
    """Run it, print what came of it, and return 1 where something grew, else 0."""
    parser = argparse.ArgumentParser(prog="python -m perf soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where the store is made, and removed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    given = parser.parse_args(arguments)
    report, share = begun(given), CpuShare()
    with Options(folder=given.dir).store() as folder, MemoryPipeline.open(folder, **SETTINGS) as memory:
        wait_ready(memory)
        soak = _Soak(memory, folder)
        for _ in range(2 * USERS):
            soak.round()
        moments = _samples(soak, given.seconds)
        samples = [sample for _, sample in moments]
        configuration = memory._engine.config.as_dict()
        ok = memory.verify().ok and memory.stats().pages == USERS * PAGES
    done = soak.counts
    note = (
        f"{done.asked} questions, {done.forgotten} forgotten, {done.killed} workers killed, {done.compacted} times "
        f"compacted; at the end {'all' if ok else 'NOT all'} of it is whole"
    )
    figures = [Figure("pages added", "pages", len(samples), done.added, note=note), *compared(samples)]
    result = BenchResult("soak", configuration, figures, share.others(), _series(moments))
    missed = tell(report, [result], given.json)
    return int(missed or not ok)


def _samples(soak: _Soak, seconds: float) -> list[tuple[float, Sample]]:
    """Return samples, with the seconds that had passed before each."""
    begun_at = time.monotonic()
    due, samples = begun_at, list[tuple[float, Sample]]()
    while (now := time.monotonic()) < begun_at + seconds:
        if now >= due:
            samples.append((now - begun_at, soak.sample()))
            due = now + seconds / SAMPLES
        soak.round()
    return [*samples, (time.monotonic() - begun_at, soak.sample())]


def _series(moments: Sequence[tuple[float, Sample]]) -> list[Series]:
    """Return the curves of everything that must not grow."""
    return [
        Series(f"soak: {plot}", name, "seconds", unit, [(seconds, of(sample) / scale) for seconds, sample in moments])
        for plot, name, unit, scale, of in _CURVES
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
