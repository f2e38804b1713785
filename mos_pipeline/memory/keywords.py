"""Which sessions of a scope share keywords, answered for all of them at once."""

from __future__ import annotations

from array import array
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

__all__ = ["KeywordIndex"]


class KeywordIndex:
    """The keywords of sessions as two columns, 16 bytes a keyword: its 64-bit hash, and the session's id.

    Hashes are those of this process, in memory alone; that two of some thousand keywords have the same one, which
    would make an index of Jaccard too high, is not to be expected. Not for several threads at once.
    """

    __slots__ = ("_hashes", "_session_ids")

    def __init__(self) -> None:
        self._hashes = array("q")
        self._session_ids = array("q")

    def add(self, session_id: int, keywords: Collection[str]) -> None:
        """Give a session keywords that it didn't have."""
        self._hashes.extend(map(hash, keywords))
        self._session_ids.extend([session_id] * len(keywords))

    def remove(self, session_id: int) -> None:
        """Take all keywords from a session."""
        session_ids = np.array(self._session_ids, np.int64)
        others = session_ids != session_id
        self._hashes = array("q", np.array(self._hashes, np.int64)[others].tobytes())
        self._session_ids = array("q", session_ids[others].tobytes())

    def jaccard(self, keywords: Collection[str], session_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the Jaccard index of ``keywords``, all different, and those of each session: float64, (s,).

        Args:
            keywords: k words.
            session_ids: not negative, in any order, int64, (s,). One without keywords has 0.
        """
        if not keywords or not self._hashes or not len(session_ids):
            return np.zeros(len(session_ids))
        owners = np.frombuffer(self._session_ids, np.int64)
        hashes = np.frombuffer(self._hashes, np.int64)
        shared = np.zeros(len(hashes), np.bool_)
        for keyword in keywords:  # a handful: sorting, as np.isin would, takes longer
            shared |= hashes == hash(keyword)
        count = int(max(owners.max(), session_ids.max())) + 1
        common = np.bincount(owners[shared], minlength=count)
        either = len(keywords) + np.bincount(owners, minlength=count) - common
        overlaps: NDArray[np.float64] = (common / either)[session_ids]
        return overlaps
