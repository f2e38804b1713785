"""Work given to one pool of workers: what waits, who has what, and what a death means for it.

Pure bookkeeping, without processes. A unit is blamed for a death only if its worker had said that it was working on it.
A unit that was blamed is a suspect: from then on a worker has it alone, so that it can take no other work with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

__all__ = ["Ledger", "Unit"]


@dataclass(slots=True, eq=False)
class Unit:
    """A piece of work.

    Attributes:
        message: the msgpack bytes that are sent to the worker.
        urgent: whether it goes before others that wait.
        deaths: how many workers died while working on it.
        started: whether its worker is working on it now.
    """

    unit_id: int
    kind: str
    message: bytes
    urgent: bool = False
    deaths: int = 0
    started: bool = False


@dataclass(slots=True)
class _Hands:
    """What one worker has."""

    units: dict[int, Unit] = field(default_factory=dict)
    size: int = 0


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
        """Let units wait for a worker, in their order; the urgent ones among them go before all that wait."""
        units = list(units)
        self._waiting.extendleft(reversed([unit for unit in units if unit.urgent]))
        self._waiting.extend(unit for unit in units if not unit.urgent)

    def withdraw(self, unit_id: int) -> bool:
        """Take back a unit that still waits; return False where a worker has it already, or it is not known."""
        for unit in self._waiting:
            if unit.unit_id == unit_id:
                self._waiting.remove(unit)
                return True
        return False

    def give(self, worker: Hashable) -> Unit | None:
        """Return the next unit that ``worker`` may have now, entered as being in its hands; None if there is none."""
        hands = self._hands.setdefault(worker, _Hands())
        if not self._waiting or any(unit.deaths for unit in hands.units.values()):
            return None
        unit = self._waiting[0]
        if hands.units and (unit.deaths or hands.size + len(unit.message) > self._credit):
            return None
        if len(hands.units) == self._units:
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

    def finish(self, worker: Hashable, unit_id: int) -> Unit | None:
        """Take a finished unit out of ``worker``'s hands; None where it is not there (a late answer)."""
        hands = self._hands.get(worker, _Hands())
        unit = hands.units.pop(unit_id, None)
        if unit is not None:
            hands.size -= len(unit.message)
        return unit

    def died(self, worker: Hashable) -> list[Unit]:
        """Put what ``worker`` had back to the head of the queue; return the units that have killed too often."""
        units = list(self._hands.pop(worker, _Hands()).units.values())
        for unit in units:
            unit.deaths += unit.started
            unit.started = False
        killers = [unit for unit in units if unit.deaths >= self._max_deaths]
        back = [unit for unit in units if unit.deaths < self._max_deaths]
        back.sort(key=lambda unit: unit.deaths)  # the innocent first: a suspect waits for empty hands
        self._waiting.extendleft(back[::-1])
        return killers

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
