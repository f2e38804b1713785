"""A reader's own embedder: for questions alone, started with the first of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mos_pipeline.config import Config
from mos_pipeline.engine.asking import QueryVector
from mos_pipeline.engine.embedding import embedder_role
from mos_pipeline.engine.own_pool import OwnPool
from mos_pipeline.runtime.supervisor import PoolState
from mos_pipeline.stages.identity import identity_of
from mos_pipeline.stages.static_tier import StaticHome

__all__ = ["Questions"]


class Questions:
    """Asks the embedder; every method may be called from any thread.

    Attributes:
        model: the identity of the embedder's model; empty until it has loaded.
    """

    def __init__(self, config: Config, root: Path, weights: str = "") -> None:
        """Ask with the model of ``config``.

        Args:
            config: all settings.
            root: the store's folder, where its static model is.
            weights: the digest of the store's model, which tells which of several quantised forms is meant.
        """
        self._pool = OwnPool(embedder_role(config, weights, StaticHome(root, writes=False)), config.runtime)
        self.model: dict[str, Any] = {}

    def ask(self, query: str) -> QueryVector | None:
        """Send ``query`` to the embedder, started if need be; None after ``close``."""
        desk = self._pool.started(self._changed)
        return None if desk is None else QueryVector(desk, query)

    def _changed(self, _role: str) -> None:
        state = self.state()
        if state is not None and state.error is None:
            self.model = identity_of(state.info)

    def state(self) -> PoolState | None:
        """Return how the embedder is; None where it was not needed yet."""
        return self._pool.state()

    def close(self, deadline: float) -> None:
        """Stop the embedder by ``deadline``, monotonic seconds."""
        self._pool.close(deadline)
