"""What finding and browsing need of whoever keeps the memory: of the owner's engine, or of a reader's view."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mos_pipeline.memory.state import Scope

__all__ = ["Gate", "NoteVisits", "Searchable", "Vectors"]

# Told which sessions of a scope a retrieval has matched; from any thread.
NoteVisits = Callable[[Scope, set[int]], None]


class Gate(Protocol):
    """Whoever changes the state, as others see it."""

    @property
    def lock(self) -> threading.Lock:
        """Held by whoever reads or changes the state."""

    def absorb(self) -> None:
        """Enter the pages that were accepted; under ``lock``."""

    def settle_accounts(self) -> None:
        """Enter the pages that were accepted, and count the visits noted; under ``lock``."""

    def catch_up(self, scope: Scope) -> None:
        """Make every page of ``scope`` searchable by its words; under ``lock``."""


class Searchable(Protocol):
    """Rows of vectors."""

    def scores(self, owner: int, query: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the tags, (n,), of an owner's rows and their dot products with ``query``, (dimension,)."""


class Vectors(Protocol):
    """The store's vectors, and the model that makes those of queries."""

    @property
    def ready(self) -> bool:
        """Whether queries' vectors come from the store's model."""

    @property
    def pool(self) -> Searchable:
        """Where the vectors are; there is none before ``ready``."""
