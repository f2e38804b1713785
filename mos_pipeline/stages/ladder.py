"""Ways to ask, the best first: which of them an endpoint takes is found out once."""

from __future__ import annotations

__all__ = ["Ladder"]


class Ladder:
    """Which way to begin with.

    Attributes:
        rung: index of the best way that was not found to be refused.
    """

    def __init__(self, rungs: int) -> None:
        self._last = rungs - 1
        self._proven = False  # whether the endpoint has answered on that rung
        self.rung = 0

    def taken(self, rung: int) -> None:
        """Note that the endpoint has answered."""
        self.rung = min(rung, self.rung) if self._proven else rung
        self._proven = True

    def refused(self, rung: int) -> bool:
        """Note that the endpoint has refused, perhaps for the way; return whether the next one is worth a try."""
        if rung < (self.rung if self._proven else self._last):
            self.rung = max(self.rung, rung + 1)
            return True
        if not self._proven:  # refused in every way: it was not for that
            self.rung = 0
        return False
