"""Which texts are computed next: pure policy, without models and processes.

Texts of like length go together, since each is padded to the longest of its batch, or of its part of it; each batch
holds a text of the unit that has waited longest, so that nobody starves, or of a unit sent ahead: what a user waits for
need not wait behind another's bulk load. Queries go before everything, and while queries come, batches of pages are
kept short, so that a query finds the model free soon. However many queries come, pages get a quarter of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Batcher", "CostModel", "Item"]

LEAST_PER_PIECE_S = 1e-9
NEWEST = 0.1  # weight of the latest batch in the pace: some ten of them count
PAGES_TURN = 4  # at the latest after so many short batches' time, one of pages goes before the queries
AHEAD_TURNS = 3  # batches in a row for units sent ahead; the next one is for the unit that has waited longest
MOST_SHARING = 4
LEAST_FIXED_PIECES = 64  # the fixed part of a batch, in word pieces, where a noisy fit finds less


class Item(NamedTuple):
    """The text of number ``text`` in a unit; ``length`` in word pieces. Ordered by length."""

    length: int
    unit: int
    text: int


class CostModel:
    """How long a batch takes: a fixed part and one for each word piece, padding included.

    The proportion of the two is fitted once, by least squares; how fast the machine is just now, beside its other
    work, is a factor that follows what batches really took.
    """

    def __init__(self) -> None:
        self.fixed = 0.01
        self.per_piece = 0.0002
        self._pace = 1.0

    def fit(self, samples: Sequence[tuple[int, float]]) -> None:
        """Fit to batches measured as (word pieces, padding included; seconds), of at least two sizes."""
        count = len(samples)
        mean_x, mean_y = sum(x for x, _ in samples) / count, sum(y for _, y in samples) / count
        variance = sum((x - mean_x) ** 2 for x, _ in samples)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in samples) / variance
        # Neither part can be negative, whatever noise says.
        self.per_piece = max(min(slope, mean_y / mean_x), LEAST_PER_PIECE_S)
        self.fixed = max(mean_y - self.per_piece * mean_x, 0.0)
        self._pace = 1.0

    def observe(self, pieces: int, seconds: float) -> None:
        """Take in that a batch of so many word pieces, padding included, took so long."""
        self._pace += NEWEST * (seconds / (self.fixed + self.per_piece * pieces) - self._pace)

    def seconds(self, pieces: int) -> float:
        """Return how long a batch of so many word pieces will take."""
        return self._pace * (self.fixed + self.per_piece * pieces)

    @property
    def fixed_pieces(self) -> float:
        """How many word pieces cost as much as a batch's fixed part."""
        return max(self.fixed / self.per_piece, LEAST_FIXED_PIECES)

    def pieces_within(self, seconds: float) -> int:
        """Return how many word pieces, padding included, can be computed in that time.

        Never fewer than cost as much as the fixed part: where the machine is so busy that every batch takes too long,
        tiny ones would make it busier still.
        """
        return int(max((seconds / self._pace - self.fixed) / self.per_piece, self.fixed_pieces))


class Batcher:
    """Texts that wait, and the choice of the next batch.

    Args:
        batch_pieces: word pieces, padding included, in a batch of pages. One text goes whatever its length.
        query_window_s: for so long after a query batches of pages must take at most ``query_batch_s``.
        cost: predicts what a batch takes.
        clock: seconds that never go back.

    Attributes:
        batch_pieces: as given; may be changed between batches.
        padded: whether each text of a batch takes what its longest does; else what its own length says. To be settled
            before the first text comes.
    """

    def __init__(
        self,
        batch_pieces: int,
        query_window_s: float,
        query_batch_s: float,
        cost: CostModel,
        clock: Callable[[], float],
    ) -> None:
        self.batch_pieces = batch_pieces
        self.padded = True
        self._query_window_s = query_window_s
        self._query_batch_s = query_batch_s
        self._cost = cost
        self._clock = clock
        self._last_query = self._last_pages = float("-inf")
        self._queries: list[Item] = []
        self._units: dict[int, int] = {}  # in their order of arrival, with how many texts of each wait
        self._ahead: deque[int] = deque()  # those of them that take turns with the oldest; some may be done already
        self._turns = 0
        self._items: list[Item] = []  # by length

    def __len__(self) -> int:
        """Return how many texts of pages wait."""
        return len(self._items)

    @property
    def queries(self) -> bool:
        """Do queries wait?"""
        return bool(self._queries)

    def query_came(self) -> None:
        """Note that there are queries now: batches stay short for a while."""
        self._last_query = self._clock()

    def add_query(self, unit: int, length: int) -> None:
        """Let a query wait."""
        self._queries.append(Item(length, unit, 0))

    def add(self, unit: int, lengths: Sequence[int], *, ahead: bool = False) -> None:
        """Let a unit's texts wait; ``ahead``: as those of a unit that has waited for long."""
        if not self._units:
            self._last_pages = self._clock()
        self._units[unit] = len(lengths)
        if ahead:
            self._ahead.append(unit)
        self._items += [Item(length, unit, text) for text, length in enumerate(lengths)]
        self._items.sort()  # two runs, which it merges: quicker than many insertions

    def drop(self, unit: int) -> None:
        """Forget a unit that has failed."""
        self._units.pop(unit, None)
        self._items = [item for item in self._items if item.unit != unit]
        self._queries = [item for item in self._queries if item.unit != unit]

    def next(self) -> list[Item]:
        """Take the next batch out: texts that should be computed together now; empty where nothing waits."""
        now = self._clock()
        if self._queries and not (self._units and now - self._last_pages > PAGES_TURN * self._query_batch_s):
            return self._take_queries()
        if not self._units:
            return []
        self._last_pages = now
        unit = self._turn()
        seed = max(place for place, item in enumerate(self._items) if item.unit == unit)
        low, high = self._around(self._items, seed, self._limit(now))
        batch = self._items[low:high]
        del self._items[low:high]
        for item in batch:
            self._units[item.unit] -= 1
            if not self._units[item.unit]:
                del self._units[item.unit]
        return batch

    def _turn(self) -> int:
        """Return the unit that the next batch is for."""
        while self._ahead and self._ahead[0] not in self._units:
            self._ahead.popleft()
        self._turns = self._turns + 1 if self._ahead and self._turns < AHEAD_TURNS else 0
        return self._ahead[0] if self._turns else next(iter(self._units))

    def _take_queries(self) -> list[Item]:
        limit = min(self.batch_pieces, self._cost.pieces_within(self._query_batch_s))
        longest, count, total = 0, 0, 0
        for item in self._queries:
            longest, total = max(longest, item.length), total + item.length
            if count and (longest * (count + 1) if self.padded else total) > limit:
                break
            count += 1
        batch, self._queries = self._queries[:count], self._queries[count:]
        return batch

    def _limit(self, now: float) -> int:
        if now - self._last_query > self._query_window_s:
            return self.batch_pieces
        return min(self.batch_pieces, self._cost.pieces_within(self._query_batch_s))

    def _around(self, items: list[Item], seed: int, limit: int) -> tuple[int, int]:
        """Widen from ``items[seed]``, sorted by length, to the neighbours that need least padding; return the slice.

        Where nothing is padded, that is to the nearest, as far as there is room. Else:

        A neighbour is left for a later batch where the padding it brings costs more than its share of that batch's
        fixed cost would. That share is a quarter at the least: the more are left out, the less like each other are
        those that remain, and without the bound batches stay small.
        """
        if not self.padded:
            return _nearest(items, seed, limit)
        low, high = seed, seed + 1
        while low > 0 or high < len(items):
            count, longest = high - low, items[high - 1].length
            below = longest - items[low - 1].length if low > 0 else float("inf")
            above = (items[high].length - longest) * count if high < len(items) else float("inf")
            if high < len(items) and items[high].length * (count + 1) > limit:
                above = float("inf")
            sharing = max(1, min(MOST_SHARING, len(items) - count, limit // longest))
            if longest * (count + 1) > limit or min(below, above) * sharing > self._cost.fixed_pieces:
                break
            if below <= above:
                low -= 1
            else:
                high += 1
        return low, high


def _nearest(items: Sequence[Item], seed: int, limit: int) -> tuple[int, int]:
    """Widen from ``items[seed]``, sorted by length, to the neighbours nearest in length; return the slice."""
    low, high, total = seed, seed + 1, items[seed].length
    while low > 0 or high < len(items):
        below = items[seed].length - items[low - 1].length if low > 0 else float("inf")
        above = items[high].length - items[seed].length if high < len(items) else float("inf")
        total += items[low - 1 if below <= above else high].length
        if total > limit:
            break
        low, high = (low - 1, high) if below <= above else (low, high + 1)
    return low, high
