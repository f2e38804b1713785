"""Beginning to have a store's vectors made again by another model; the rest is work in the background.

The new model is loaded once before anything is changed, in a process of its own: one that is missing or broken costs
nothing. Then MANIFEST names it, with a new generation of vectors, in one replacement: from there on vectors in frames
of other generations are another model's, and are never used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mos_pipeline.config import Config
from mos_pipeline.engine.embedding import embedder_role
from mos_pipeline.engine.modelling import ModelWork
from mos_pipeline.errors import StoreFullError
from mos_pipeline.stages.identity import identity_of, names_it, same_vectors
from mos_pipeline.stages.static_tier import StaticHome
from mos_pipeline.store.codec import GENERATIONS
from mos_pipeline.store.models import wrong_with_model
from mos_pipeline.store.recovery import OpenStore, StoredFrame

__all__ = ["begin_reembedding"]

logger = logging.getLogger(__name__)


def begin_reembedding(store: OpenStore, config: Config, frames: Iterable[StoredFrame]) -> bool:
    """Have the configured model be the store's from now on; return False where it is that already.

    Args:
        store: before its writer is started.
        config: names the model.
        frames: all frames of derived data that the store has.

    Raises:
        ModelNotFoundError, WorkerError, DeadlineError: the model can't be used; nothing was changed.
        StoreError: MANIFEST can't be replaced, or the store has vectors of so many models that it must be compacted.
    """
    stored = store.manifest.embedding
    if stored is None or (names_it(config.embedding, stored) and not wrong_with_model(store.folder, stored)):
        return False  # a static model that is lost is another one, even where it is distilled from the same
    identity = _loaded_identity(config, store.folder.root)
    if same_vectors(identity, stored):
        return False
    store.use_model(identity, _unused(frames, store))
    text = "%s: its vectors are made again by %s; those of %s are not used any more"
    logger.info(text, store.folder.root, identity["model"], stored["model"], extra={"event": "reembedding"})
    return True


def _unused(frames: Iterable[StoredFrame], store: OpenStore) -> int:
    """Return the next generation that no frame has: only whether it is the present one will ever be asked."""
    present = store.manifest.vector_generation
    used = {present, *(frame.generation for frame in frames)}
    for number in range(present + 1, present + GENERATIONS):
        if number % GENERATIONS not in used:
            return number % GENERATIONS
    raise StoreFullError(
        f"{store.folder.root}: it has frames of {GENERATIONS} models; open it with the one that it was opened with "
        "last, wait until it is idle, and compact it"
    )


def _loaded_identity(config: Config, root: Path) -> dict[str, Any]:
    with ModelWork(embedder_role(config, home=StaticHome(root, anew=True)), config.runtime) as work:
        return identity_of(work.result())
