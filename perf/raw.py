"""``SentenceTransformer.encode`` in a process of its own, by any backend: the raw rate that ours is compared with.

``python -m perf.raw SETTINGS KIND``, with the settings of the section ``embedding`` as JSON. KIND is ``raw``: the
library's own with its defaults, but float32 where OpenVINO would take bfloat16 for it; or ``ours``: the embedder's
backend, with the batches that it chose, without the pipeline around it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mos_pipeline import config
from mos_pipeline.stages.embed import EmbedStage
from mos_pipeline.stages.models import find_model
from mos_pipeline.stages.openvino_encoder import EXACT
from mos_pipeline.stages.sentence_transformer import report_nothing
from mos_pipeline.stages.variant_backend import VariantBackend
from perf.children import serve
from perf.timing import seconds

__all__ = ["main", "raw_model"]

BATCH = 32  # the library's own default
WARM_UP = ["The quick brown fox jumps over the lazy dog, and then it sleeps in the sun."] * BATCH


def main(settings: config.Embedding, kind: str) -> None:
    """Load the model, and encode lists of texts for the parent; it is told the seconds."""
    encode = _ours(settings) if kind == "ours" else _raw(settings)
    encode(WARM_UP)
    serve({"encode": encode})


def raw_model(settings: config.Embedding) -> Any:
    """Return the model as sentence-transformers loads it, by the backend and in the precision that are configured.

    Raises:
        ModelNotFoundError, WorkerError: as from the embedder.
    """
    report_nothing()  # and no more: how threads wait, as the embedder sets it for its process, is part of our way
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    files = find_model(settings.model, download=False)
    form = files.folder if settings.backend == "torch" else VariantBackend(settings).form(files).folder
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
    backend: Any = settings.backend
    exact: dict[str, Any] = {"model_kwargs": {"ov_config": EXACT}} if settings.backend == "openvino" else {}
    return SentenceTransformer(str(form), device="cpu", local_files_only=True, backend=backend, **exact)


def _raw(settings: config.Embedding) -> Callable[[list[str]], float]:
    model = raw_model(settings)
    return lambda texts: seconds(lambda: model.encode(texts, batch_size=BATCH, show_progress_bar=False))


def _ours(settings: config.Embedding) -> Callable[[list[str]], float]:
    stage = EmbedStage(settings)
    pieces = stage.prepare()["batch_word_pieces"]
    backend = stage._backend

    def encode(texts: list[str]) -> None:
        items = sorted(backend.prepare(texts), key=lambda item: item.length)
        begun = 0
        for place, item in enumerate(items):
            if (place + 1 - begun) * item.length > pieces and place > begun:
                backend.encode(items[begun:place])
                begun = place
        backend.encode(items[begun:])

    return lambda texts: seconds(lambda: encode(texts))


if __name__ == "__main__":
    main(replace(config.Embedding(), **json.loads(sys.argv[1])), sys.argv[2])
