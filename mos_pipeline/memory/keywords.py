"""Which sessions of a scope share keywords, answered for all of them at once."""

from __future__ import annotations

from array import array
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

__all__ = ["KeywordIndex"]

SPARSE = 2  # ids for each keyword: beyond it most sessions are gone, and what is counted for each id costs too much

Ids = NDArray[np.int64]


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
        places, wanted = owners, session_ids
        if max(owners.max(), session_ids.max()) > SPARSE * len(owners):
            places, wanted = _relabelled(owners, session_ids)
        count = int(max(places.max(), wanted.max())) + 1
        common = np.bincount(places[shared], minlength=count)
        either = len(keywords) + np.bincount(places, minlength=count) - common
        overlaps: NDArray[np.float64] = (common / either)[wanted]
        return overlaps


def _relabelled(owners: Ids, session_ids: Ids) -> tuple[Ids, Ids]:
    """Return both with ids from 0 on in the place of their own; owners that are not asked for have the highest."""
    known, wanted = np.unique(session_ids, return_inverse=True)
    places = np.searchsorted(known, owners)
    places[known[np.minimum(places, len(known) - 1)] != owners] = len(known)
    return places, wanted
