"""What a run is asked for, and the folders it may use."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perf.texts import Page, dataset_pages, synthetic_pages

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """One run.

    Attributes:
        quick: small sizes, for a look; the figures are rougher.
        pages: pages to add, store or ingest, in place of each bench's own number.
        backend: the embedding backend where a bench leaves the choice.
        dataset: a LoCoMo file to take pages from; synthetic ones where None.
        folder: where stores are made; the system's temporary folder where None.
    """

    quick: bool = False
    pages: int | None = None
    backend: str = "torch"
    dataset: Path | None = None
    folder: Path | None = None

    def size(self, full: int, quick: int) -> int:
        """Return how many pages a bench takes: ``full`` or ``quick``, unless told otherwise."""
        return self.pages or (quick if self.quick else full)

    def times(self, full: int, quick: int) -> int:
        """Return how often a bench repeats something."""
        return quick if self.quick else full

    def source(self) -> list[Page] | None:
        """Return all pages of the data set, or None where there is none."""
        return None if self.dataset is None else dataset_pages(self.dataset)

    def page_stream(self) -> Iterator[Page]:
        """Yield pages without end: the data set's again and again, or synthetic ones."""
        source = self.source()
        return synthetic_pages() if source is None else itertools.cycle(source)

    @contextmanager
    def store(self) -> Iterator[Path]:
        """Provide a path for a store, removed with all that is in it at the end."""
        with tempfile.TemporaryDirectory(prefix="mos-perf-", dir=self.folder) as folder:
            yield Path(folder) / "store"
