"""How fast a pipeline works: what its counters grew by between two snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mos_pipeline.metrics import Stats

__all__ = ["Rates"]


class Rates:
    """Takes one snapshot after another of one pipeline."""

    def __init__(self) -> None:
        self._before: tuple[float, dict[str, int]] | None = None

    def __call__(self, stats: Stats, now: float) -> dict[str, float] | None:
        """Return the growth a second since the snapshot before, by name.

        "accepted", "embedded", "placed" (into sessions), "written": pages; "computed", "reused": texts; "calls": of
        language models.

        Args:
            stats: the snapshot.
            now: when it was made, in seconds that never go back.

        Returns:
            None with the first one, or where the counters began anew, or no time has passed.
        """
        counts = {
            "accepted": stats.accepted_pages,
            "embedded": stats.embedded_pages,
            "placed": stats.placed_pages,
            "written": stats.written_pages,
            "computed": stats.embedded_texts,
            "reused": stats.reused_texts,
            "calls": sum(task.calls for task in stats.tasks.values()),
        }
        before, self._before = self._before, (now, counts)
        if before is None or now <= before[0] or any(counts[name] < count for name, count in before[1].items()):
            return None
        return {name: (count - before[1][name]) / (now - before[0]) for name, count in counts.items()}
