"""Texts on their way to the embedder, and the vector pool that it writes into. Owned by the coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from mos_pipeline.config import Config
from mos_pipeline.engine.desk import Desk
from mos_pipeline.runtime.supervisor import Outcome, Role
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.stages.embed import EmbedStage
from mos_pipeline.stages.static_tier import StaticHome

__all__ = ["EMBEDDER", "Embedding", "RowsAnswer", "embedder_role"]

EMBEDDER = "embedder"
CREDIT = 16 << 20

RowsAnswer = Callable[[list[int], Outcome], None]


def embedder_role(config: Config, home: StaticHome) -> Role:
    """Return what the embedder's process is made of; ``home`` tells where the store keeps its static model."""
    return Role(EMBEDDER, EmbedStage, (config.embedding, time.monotonic, None, home), credit=CREDIT)


class Embedding:
    """The coordinator's side of the embedder.

    Attributes:
        in_flight: texts that the embedder has and has not answered.
        ready: whether it may be given texts: it runs, with the store's model.
    """

    def __init__(self, desk: Desk, limit: int) -> None:
        """Give texts out by ``desk``, up to ``limit`` ahead of the embedder's work."""
        self._desk = desk
        self._limit = limit
        self._pool: VectorPool | None = None
        self.in_flight = 0
        self.ready = False

    @property
    def has_pool(self) -> bool:
        """Whether it is known how long vectors are."""
        return self._pool is not None

    @property
    def pool(self) -> VectorPool:
        """Where the vectors are.

        Raises:
            RuntimeError: no model has told yet how long they are.
        """
        if self._pool is None:
            raise RuntimeError("vectors were asked for before the embedder was ready")
        return self._pool

    def provide(self, pool: VectorPool) -> None:
        """Take the pool, once it is known how long vectors are."""
        self._pool = pool

    @property
    def saturated(self) -> bool:
        """Whether the embedder has as many texts as it may have; an answer of its own changes that."""
        return self.in_flight >= self._limit

    @property
    def half_full(self) -> bool:
        """Whether it has as many as leave room for what comes next: work in the background adds no more."""
        return 2 * self.in_flight >= self._limit

    def send(self, owner: int, texts: Sequence[str], answer: RowsAnswer, *, ahead: bool = False) -> None:
        """Have ``texts`` embedded into new rows of ``owner``; ``ahead`` of others', for most of the embedder's time.

        ``answer(rows, outcome)`` is called by the coordinator. Whoever answers commits the rows or releases them.
        """
        rows = list(map(int, self.pool.allocate(owner, len(texts))))
        addresses = [list(self.pool.address(row)) for row in rows]
        self.in_flight += len(texts)
        back = partial(self._back, rows, answer)
        self._desk.submit(EMBEDDER, "ahead" if ahead else "embed", [list(texts), addresses], back, urgent=ahead)

    def _back(self, rows: list[int], answer: RowsAnswer, outcome: Outcome) -> None:
        self.in_flight -= len(rows)
        answer(rows, outcome)

    def close(self) -> None:
        """Remove the pool."""
        if self._pool is not None:
            self._pool.close()
