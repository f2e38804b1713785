"""How many pages a model is asked about at once: fewer where that was too much, more again by and by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from mos_pipeline.stages.caller import UnansweredError
from mos_pipeline.stages.prompts import INDIVISIBLE_PAGES

__all__ = ["Portions"]

T = TypeVar("T")

ANY = 1 << 20
TRUST_AFTER = 8  # answers, after which twice as many pages are tried again


class Portions:
    """What one kind of task was found to take. For one event loop.

    Attributes:
        most: pages that are asked about at once.
    """

    def __init__(self) -> None:
        self.most = ANY
        self._well = 0

    async def ask(self, pages: int, ask: Callable[[int, int], Awaitable[T]]) -> list[T]:
        """Return the answers of ``ask(begin, end)`` for parts of so many pages, asked one after the other.

        Where a part is not answered though the endpoint answers, its halves are asked for, down to nine pages.

        Raises:
            UnansweredError: there is no answer to one of the parts.
        """
        found, begin = list[T](), 0
        while begin < pages:
            left = pages - begin
            parts = -(-left // self.most)
            end = begin + -(-left // parts)
            try:
                found.append(await ask(begin, end))
            except UnansweredError as error:
                if not error.reached or end - begin <= INDIVISIBLE_PAGES:
                    raise
                self._too_much(end - begin)
            else:
                begin = end
                self._answered()
        return found

    def _too_much(self, pages: int) -> None:
        self.most = min(self.most, max(INDIVISIBLE_PAGES, -(-pages // 2)))
        self._well = 0

    def _answered(self) -> None:
        self._well += 1
        if self._well >= TRUST_AFTER:
            self.most = min(ANY, 2 * self.most)
            self._well = 0
