"""``SentenceTransformer.encode`` in a process of its own: what the pipeline's throughput is compared with.

``python -m perf.encode SETTINGS``, with the settings of the section ``embedding`` as JSON. Torch in fp32 is loaded as
the library does it, with nothing of ours; another backend, precision or tier as the embedder loads it, without the
embedder around it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from mos_pipeline import config
from mos_pipeline.stages import embed
from mos_pipeline.stages.models import find_model
from perf.children import serve
from perf.timing import seconds
from perf.variants import is_plain

__all__ = ["main"]

BATCH = 32  # the library's own default
WARM_UP = ["The quick brown fox jumps over the lazy dog, and then it sleeps in the sun."] * BATCH


def main(settings: config.Embedding) -> None:
    """Load the model, and encode lists of texts for the parent; it is told the seconds."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    threads = settings.threads or len(os.sched_getaffinity(0))
    transformer = _plain(settings, threads) if is_plain(settings) else _as_the_embedder(settings)

    def encode(texts: list[str]) -> float:
        return seconds(lambda: transformer.encode(texts, batch_size=BATCH, show_progress_bar=False))

    encode(WARM_UP)
    serve({"threads": lambda: threads, "encode": encode})


def _plain(settings: config.Embedding, threads: int) -> Any:
    folder = find_model(settings.model, download=False).folder
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _as_the_embedder(settings: config.Embedding) -> Any:
    backend: Any = embed._backend(settings)
    backend.load()
    return backend._model


if __name__ == "__main__":
    main(config.Embedding(**json.loads(sys.argv[1])))
