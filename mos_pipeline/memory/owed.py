"""What a model still owes of one scope: tasks that an extractive answer stands in for, by pages."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from mos_pipeline.memory.ascending import column, contains

__all__ = ["OF_BATCH", "OF_PROMOTION", "Owed"]

OF_BATCH = ("continuity", "topics")
OF_PROMOTION = ("profile", "knowledge")


class Owed:
    """Pages by task, 8 bytes each. Not for several threads at once: its owner holds a lock.

    Attributes:
        stand_ins: sessions founded by topics that are owed, so that their summaries are to be replaced.
    """

    __slots__ = ("_pages", "stand_ins")

    def __init__(self) -> None:
        self._pages: dict[str, array[int]] = {}
        self.stand_ins = set[int]()

    def __bool__(self) -> bool:
        """Whether anything is owed."""
        return bool(self._pages)

    def pages(self, task: str) -> array[int]:
        """Return the pages that ``task`` is owed of, ascending; to be read only."""
        return self._pages.get(task, _NONE)

    def counts(self) -> dict[str, int]:
        """Return how many pages each task is owed of; tasks that are owed of none are left out."""
        return {task: len(pages) for task, pages in self._pages.items()}

    def owes(self, task: str, seqs: Iterable[int]) -> bool:
        """Return whether ``task`` is owed of every one of these pages."""
        pages = self.pages(task)
        return all(contains(pages, seq) for seq in seqs)

    def note(self, tasks: Iterable[str], seqs: Collection[int]) -> None:
        """Note that ``tasks`` are owed of pages."""
        new = np.unique(np.fromiter(seqs, np.int64, len(seqs)))
        for task in tasks:
            pages = self._pages.get(task)
            if not len(new):
                continue
            if pages is None or pages[-1] < new[0]:  # as they come, mostly
                self._pages.setdefault(task, column()).frombytes(new.tobytes())
            else:
                self._pages[task] = array("q", np.union1d(np.frombuffer(pages, np.int64), new).tobytes())

    def settle(self, tasks: Iterable[str], seqs: Collection[int]) -> None:
        """Note that ``tasks`` are owed of these pages no longer; those that never were are passed over."""
        for task in tasks:
            pages = self._pages.get(task)
            if pages is None or not seqs:
                continue
            known = np.frombuffer(pages, np.int64)
            at = np.searchsorted(known, np.fromiter(seqs, np.int64, len(seqs)))
            at = at[at < len(known)]
            left = np.delete(known, at[np.isin(known[at], np.fromiter(seqs, np.int64, len(seqs)))])
            if len(left):
                self._pages[task] = array("q", left.tobytes())
            else:
                del self._pages[task]

    def as_plain(self) -> list[Any]:
        """Return it as msgpack can store it; an empty list where nothing is owed."""
        if not self._pages and not self.stand_ins:
            return []
        return [{task: pages.tolist() for task, pages in self._pages.items()}, sorted(self.stand_ins)]

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Owed:
        """Return what ``as_plain`` was told of."""
        owed = cls()
        if plain:
            pages, stand_ins = plain
            owed._pages = {task: array("q", seqs) for task, seqs in pages.items()}
            owed.stand_ins = set(stand_ins)
        return owed


_NONE = column()
