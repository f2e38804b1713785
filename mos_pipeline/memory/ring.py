"""Short-term memory: the latest pages of one (user, assistant), and when they make a batch."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence

from mos_pipeline.errors import InputError

__all__ = ["ShortTermRing"]


class ShortTermRing:
    """The newest ``capacity`` items (sequence numbers) in a fixed buffer of 8 bytes each.

    Every ``capacity`` appended items make one batch; an item is in exactly one batch and stays in the ring until
    newer ones push it out, whatever became of its batch. An item that is removed leaves its batch too, if that is not
    complete yet. Not for several threads at once: its owner holds a lock.

    Args:
        capacity: items in the ring and in a batch, at least 1.

    Raises:
        InputError: the capacity is below 1.
    """

    # Slot i holds item i of the batch that is filling up: slots below _tail are the items since the last batch, those
    # from max(_tail, _first) on what is left of the time before it. So a full buffer is the batch, in order.
    __slots__ = ("_first", "_slots", "_tail")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise InputError(f"a ring of {capacity} pages can't hold any; set short_term.capacity to 1 or more")
        self._slots = array("q", bytes(8 * capacity))
        self._tail = 0
        self._first = capacity

    @property
    def capacity(self) -> int:
        """Items in the ring, and in a batch."""
        return len(self._slots)

    @property
    def tail(self) -> list[int]:
        """The items since the last batch, oldest first; fewer than ``capacity``."""
        return self._slots[: self._tail].tolist()

    def __len__(self) -> int:
        return self._tail + len(self._slots) - max(self._tail, self._first)

    def append(self, seq: int) -> tuple[int, ...] | None:
        """Take the newest item; return the batch it completes, oldest first, or None where it completes none."""
        slots, at = self._slots, self._tail
        slots[at] = seq
        at += 1
        if at < len(slots):
            self._tail = at
            return None
        self._tail = self._first = 0
        return tuple(slots)

    def latest(self) -> list[int]:
        """Return the newest items, at most ``capacity``, oldest first."""
        return (self._slots[max(self._tail, self._first) :] + self._slots[: self._tail]).tolist()

    def remove(self, seqs: Collection[int]) -> None:
        """Take items out, wherever they are; one that isn't there is fine."""
        tail = [seq for seq in self.tail if seq not in seqs]
        older = [seq for seq in self._slots[max(self._tail, self._first) :] if seq not in seqs]
        self._tail, self._first = len(tail), len(self._slots) - len(older)
        self._slots[: self._tail] = array("q", tail)
        self._slots[self._first :] = array("q", older)

    def restore(self, items: Sequence[int], unbatched: int) -> list[tuple[int, ...]]:
        """Put the ring into the state it had, and return the batches that are due, oldest first.

        Batches are due at once where the ring was larger before: there may be ``capacity`` unbatched items or more.

        Args:
            items: the latest items, oldest first, as many as are known (more than ``capacity`` are welcome).
            unbatched: how many of them, the newest, have been in no batch yet.

        Raises:
            InputError: ``unbatched`` is negative or more than there are items.
        """
        if not 0 <= unbatched <= len(items):
            raise InputError(f"{unbatched} of {len(items)} items can't be unbatched; give at least the unbatched ones")
        capacity, split = len(self._slots), len(items) - unbatched
        older = items[max(0, split - capacity) : split]
        self._tail, self._first = 0, capacity - len(older)
        self._slots[self._first :] = array("q", older)
        batches = (self.append(seq) for seq in items[split:])
        return [batch for batch in batches if batch is not None]
