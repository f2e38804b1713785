"""From ranked pages to an answer: those that pass the filters, as many as are wanted, as much as the budget holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from mos_pipeline.memory.moments import moment

__all__ = ["Budget", "Filter", "estimated_tokens"]

CHARS_A_TOKEN = 4  # English text, as models' own tokenizers split it; none of them is loaded for an estimate
MOST_REFUSED = 32  # pages that don't fit, one after the other: then no shorter one is looked for
TOKENS_A_PAGE = 12  # names of the speakers and the time, as a prompt shows them


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a model takes for ``text``: one for each four characters, rounded up."""
    return -(-len(text) // CHARS_A_TOKEN)


class Filter(NamedTuple):
    """What a page must be like.

    Attributes:
        since: not earlier than this moment; a page whose timestamp can't be read is left out then.
        until: not later than this moment; likewise.
        where: what the metadata must hold: every key with an equal value.
        lacking: a key that the metadata must not hold, or with nothing true.
    """

    since: datetime | None = None
    until: datetime | None = None
    where: Mapping[str, Any] | None = None
    lacking: str | None = None

    @property
    def empty(self) -> bool:
        """Whether every page passes."""
        return self.since is None and self.until is None and not self.where and self.lacking is None

    def passes(self, timestamp: str, metadata: Mapping[str, Any]) -> bool:
        """Return whether a page with these is wanted."""
        if self.lacking is not None and metadata.get(self.lacking):
            return False
        return self._in_time(timestamp) and all(
            key in metadata and metadata[key] == value for key, value in (self.where or {}).items()
        )

    def _in_time(self, timestamp: str) -> bool:
        if self.since is None and self.until is None:
            return True
        when = moment(timestamp)
        if when is None:
            return False
        return (self.since is None or when >= self.since) and (self.until is None or when <= self.until)


class Budget:
    """Tokens that may be spent on pages and on the overviews of their chains, each overview once."""

    def __init__(self, tokens: int | None) -> None:
        """``tokens`` may be spent; any number where None."""
        self._left = tokens
        self._overviews: set[str] = {""}
        self._refused = 0  # in a row

    @property
    def spent(self) -> bool:
        """Whether it is of no use to offer more: what is left is too little, for many a page in a row."""
        return self._left is not None and (self._left <= TOKENS_A_PAGE or self._refused >= MOST_REFUSED)

    def takes(self, texts: Iterable[str], overview: str) -> bool:
        """Spend what a page costs, and its chain's overview if it is the first of its chain; False where it is over."""
        if self._left is None:
            return True
        cost = TOKENS_A_PAGE + sum(map(estimated_tokens, texts))
        if overview not in self._overviews:
            cost += estimated_tokens(overview)
        if cost > self._left:
            self._refused += 1
            return False
        self._refused = 0
        self._left -= cost
        self._overviews.add(overview)
        return True
