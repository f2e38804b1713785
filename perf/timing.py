"""Percentiles, and a clock around a call."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

__all__ = ["median", "percentile", "seconds"]


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least ``share`` (above 0, up to 1) of all samples don't exceed.

    The nearest-rank definition: always a value that was measured. Of few samples a high percentile is the largest.

    Raises:
        ValueError: there are no samples, or ``share`` is out of range.
    """
    if not samples or not 0.0 < share <= 1.0:
        raise ValueError(f"a percentile needs samples and a share in (0, 1], found {len(samples)} and {share!r}")
    return sorted(samples)[math.ceil(share * len(samples)) - 1]


def median(samples: Sequence[float]) -> float:
    """Return the middle sample, or the mean of the two in the middle."""
    return float(statistics.median(samples))


def seconds(call: Callable[[], object]) -> float:
    """Return how long ``call()`` takes."""
    begun = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begun) / 1e9
