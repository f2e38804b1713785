"""Work given to one pool of workers: what waits, who has what, and what a death means for it.

Pure bookkeeping, without processes. A unit is blamed for a death only if its worker had said that it was working on it.
A unit that was blamed is a suspect: from then on a worker has it alone, so that it can take no other work with it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

__all__ = ["Ledger", "Unit"]


@dataclass(slots=True, eq=False)
class Unit:
    """A piece of work.

    Attributes:
        message: the msgpack bytes that are sent to the worker.
        urgent: whether it goes before others that wait, and takes no heed of the room that they take.
        deaths: how many workers died while working on it.
        started: whether its worker is working on it now.
        once: whether it is not given out again when its worker dies: a part of its result was handed out, which can't
            be unsaid, or nobody waits for it any more.
    """

    unit_id: int
    kind: str
    message: bytes
    urgent: bool = False
    deaths: int = 0
    started: bool = False
    once: bool = False


@dataclass(slots=True)
class _Hands:
    """What one worker has."""

    units: dict[int, Unit] = field(default_factory=dict)
    size: int = 0

    def beside(self, unit: Unit) -> tuple[int, int]:
        """Return how many units there are that ``unit`` must share the room with, and their bytes."""
        if not unit.urgent:
            return len(self.units), self.size
        sizes = [len(other.message) for other in self.units.values() if other.urgent]
        return len(sizes), sum(sizes)


class Ledger:
    """Units waiting for, and in the hands of, the workers of one pool."""

    def __init__(self, max_deaths: int, credit: int, units: int | None = None) -> None:
        """Blame a unit at most ``max_deaths`` times; keep ``credit`` bytes, and ``units``, in one worker's hands."""
        self._max_deaths = max_deaths
        self._credit = credit
        self._units = units
        self._waiting: deque[Unit] = deque()
        self._hands: dict[Hashable, _Hands] = {}

    def add(self, units: Iterable[Unit]) -> None:
        """Let units wait for a worker, in their order; the urgent ones among them go before all that wait.

        Only those of their own kind that wait at the head stay before them: none of them starves for the latest.
        """
        units = list(units)
        urgent = [unit for unit in units if unit.urgent]
        kind = urgent[0].kind if urgent else ""
        ahead = list(itertools.takewhile(lambda unit: unit.urgent and unit.kind == kind, self._waiting))
        for _ in ahead:
            self._waiting.popleft()
        self._waiting.extendleft(reversed([*ahead, *urgent]))
        self._waiting.extend(unit for unit in units if not unit.urgent)

    def withdraw(self, unit_id: int) -> bool:
        """Take back a unit that still waits; return False where a worker has it already, or it is not known."""
        for unit in self._waiting:
            if unit.unit_id == unit_id:
                self._waiting.remove(unit)
                return True
        return False

    def give(self, worker: Hashable) -> Unit | None:
        """Return the next unit that ``worker`` may have now, entered as being in its hands; None if there is none.

        Urgent ones have as much room of their own as there is for the others.
        """
        hands = self._hands.setdefault(worker, _Hands())
        if not self._waiting or any(unit.deaths for unit in hands.units.values()):
            return None
        unit = self._waiting[0]
        if hands.units and unit.deaths:
            return None
        count, size = hands.beside(unit)
        if count and (count == self._units or size + len(unit.message) > self._credit):
            return None
        self._waiting.popleft()
        hands.units[unit.unit_id] = unit
        hands.size += len(unit.message)
        return unit

    def started(self, worker: Hashable, unit_ids: Iterable[int]) -> None:
        """Note that ``worker`` is working on these now, and on no others."""
        current = set(unit_ids)
        for unit_id, unit in self._hands.get(worker, _Hands()).units.items():
            unit.started = unit_id in current

    def handed_out(self, worker: Hashable, unit_id: int) -> bool:
        """Note that a part of a unit's result came; return False where ``worker`` has no such unit (it is late)."""
        unit = self._hands.get(worker, _Hands()).units.get(unit_id)
        if unit is not None:
            unit.once = True
        return unit is not None

    def abandon(self, unit_id: int) -> Hashable | None:
        """Note that nobody waits for a unit any more; return the worker that has it, None where none has."""
        if self.withdraw(unit_id):
            return None
        for worker, hands in self._hands.items():
            if unit_id in hands.units:
                hands.units[unit_id].once = True
                return worker
        return None

    def finish(self, worker: Hashable, unit_id: int) -> Unit | None:
        """Take a finished unit out of ``worker``'s hands; None where it is not there (a late answer)."""
        hands = self._hands.get(worker, _Hands())
        unit = hands.units.pop(unit_id, None)
        if unit is not None:
            hands.size -= len(unit.message)
        return unit

    def died(self, worker: Hashable) -> list[Unit]:
        """Put what ``worker`` had back to the head of the queue; return the units that are not given out again.

        Those are the ones that have killed too often, and those that are given out once.
        """
        units = list(self._hands.pop(worker, _Hands()).units.values())
        for unit in units:
            unit.deaths += unit.started
            unit.started = False
        lost = [unit for unit in units if unit.once or unit.deaths >= self._max_deaths]
        back = [unit for unit in units if unit not in lost]
        # What somebody waits for first, then the innocent: a suspect waits for empty hands.
        back.sort(key=lambda unit: (not unit.urgent, unit.deaths))
        self._waiting.extendleft(back[::-1])
        return lost

    def give_up(self) -> list[Unit]:
        """Empty the ledger: no worker will come any more. Return everything that was in it."""
        units = [*self._waiting, *(u for hands in self._hands.values() for u in hands.units.values())]
        self._waiting.clear()
        self._hands.clear()
        return units

    def busy(self, worker: Hashable) -> int:
        """Return the bytes in ``worker``'s hands."""
        return self._hands[worker].size if worker in self._hands else 0

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(hands.units) for hands in self._hands.values())
