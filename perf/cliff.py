"""What each add takes in a row of them, ours and the original's in one run: the cliff at short-term memory's capacity.

Fresh users add pages with pauses, the next user when everything of the one before is done; told are the adds after the
first full batch over those before. The same texts, pauses, embedding model's files and endpoint for ``memoryos-pro``
(see ``perf/peers.py``), whose short-term memory is as long. ``--plot docs/cliff.svg`` draws it for a page, as
``docs/cliff-light.svg`` and ``docs/cliff-dark.svg``.
"""

from __future__ import annotations

from perf.adds import ADDS, CAPACITY, cliff, in_order, openai_settings, our_adds, their_adds
from perf.endpoint import endpoint
from perf.options import Options
from perf.peers import INSTALL, MEMORYOS, peer
from perf.result import BenchResult, at_most

__all__ = ["run"]

USERS, THEIR_USERS = 20, 2
QUICK_ADDS = 11
EARLY, LATE = slice(0, CAPACITY - 1), slice(CAPACITY, None)


def run(options: Options) -> BenchResult:
    """Measure both."""
    other = peer(MEMORYOS)
    with endpoint(options.latency_s) as asked:
        settings = options.with_own(openai_settings(asked.base_url))
        row = options.times(ADDS, QUICK_ADDS)
        ours = our_adds(options, settings, options.times(USERS, 2), adds=row)
        figures, series = cliff("add", ours, EARLY, LATE, at_most(1.1)), [in_order("mos_pipeline", ours)]
        if other is not None:
            theirs = their_adds(options, other, asked.base_url, options.times(THEIR_USERS, 1), adds=row)
            figures += cliff(f"{MEMORYOS}, add", theirs, EARLY, LATE)
            series.append(in_order(MEMORYOS, theirs))
    notes = () if other else (f"{MEMORYOS} is not installed beside: {INSTALL}",)
    return BenchResult("cliff", options.checked(settings), figures, series=series, notes=notes)
