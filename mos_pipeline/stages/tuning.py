"""How many threads compute, and how large batches are: chosen by a short measurement while a model warms up.

The choice itself is pure. Threads: the fewest that do the same work in about the least time; beyond the cores that
there really are, more of them only share one. Batches: the smallest that reaches about the best rate, of those that
take no longer than a question may have to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from mos_pipeline.stages.backend import Backend

__all__ = [
    "FIRST_PIECES",
    "Tunable",
    "best_pieces",
    "best_threads",
    "choose_pieces",
    "choose_threads",
    "thread_counts",
]

FIRST_PIECES = 1024  # a batch is never made smaller by measurement, and stays so where nothing is measured
MOST_PIECES = 16384
MOST_BATCH_S = 0.25
ENOUGH = 0.97  # of the best
FEWEST_TO_HALVE = 4  # cores: half of fewer is one, which was never quicker
ROUNDS = 2


@runtime_checkable
class Tunable(Backend, Protocol):
    """A backend whose speed depends on the machine, and that can be told how many threads to use."""

    def threads_to_try(self, cores: int) -> tuple[int, ...]:
        """Return the numbers of threads that are worth a try."""
        ...

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads from now on."""
        ...


def thread_counts(cores: int) -> tuple[int, ...]:
    """Return the numbers of threads that are worth a try: one for each core, and half as many, for shared cores."""
    return (cores, cores // 2) if cores >= FEWEST_TO_HALVE else (cores,)


def best_threads(seconds: Mapping[int, float]) -> int:
    """Return the fewest threads that do the same work in about the least time; ``seconds`` by number of threads."""
    least = min(seconds.values())
    return min(threads for threads, taken in seconds.items() if ENOUGH * taken <= least)


def best_pieces(measured: Sequence[tuple[int, float]]) -> int:
    """Return the smallest batch that reaches about the best rate.

    Args:
        measured: (word pieces, seconds), ascending; the first is chosen from however long it takes, the others only
            where they take at most ``MOST_BATCH_S``.
    """
    allowed = [(pieces, taken) for at, (pieces, taken) in enumerate(measured) if not at or taken <= MOST_BATCH_S]
    best = max(pieces / taken for pieces, taken in allowed)
    return next(pieces for pieces, taken in allowed if pieces / taken >= ENOUGH * best)


def choose_threads(backend: Tunable, counts: Iterable[int], work: Callable[[], float]) -> int:
    """Have ``backend`` use as many threads as do best; ``work()`` does something and returns the seconds it took."""
    counts = tuple(counts)
    seconds = {}
    for threads in counts if len(counts) > 1 else ():
        backend.use_threads(threads)
        work()  # the first time pays for what later ones find ready
        seconds[threads] = min(work() for _ in range(ROUNDS))
    chosen = best_threads(seconds) if seconds else counts[0]
    if not seconds or chosen != counts[-1]:
        backend.use_threads(chosen)
    return chosen


def choose_pieces(work: Callable[[int], float]) -> int:
    """Return how many word pieces a batch should have; ``work(pieces)`` computes such a batch, and returns its seconds.

    Larger ones are tried while they may be quick enough, and the last try has won something.
    """
    measured = list[tuple[int, float]]()
    pieces = FIRST_PIECES
    while pieces <= MOST_PIECES:
        work(pieces)  # the first time pays for what later ones find ready
        measured.append((pieces, min(work(pieces) for _ in range(ROUNDS))))
        _, taken = measured[-1]
        if 2 * taken > MOST_BATCH_S / ENOUGH or best_pieces(measured) != pieces:
            break
        pieces *= 2
    return best_pieces(measured)
