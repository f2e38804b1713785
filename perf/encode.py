"""Plain ``SentenceTransformer.encode`` in a process of its own: what the pipeline's throughput is compared with."""

from __future__ import annotations

import os
import sys
from typing import Any

from mos_pipeline.stages.models import find_model
from perf.children import serve
from perf.timing import seconds

__all__ = ["main"]

BATCH = 32
WARM_UP = ["The quick brown fox jumps over the lazy dog, and then it sleeps in the sun."] * BATCH


def main(model: str, threads: int) -> None:
    """Load ``model``, and encode lists of texts for the parent; it is told the seconds."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    folder = find_model(model, download=False).folder
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    transformer: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def encode(texts: list[str]) -> float:
        return seconds(lambda: transformer.encode(texts, batch_size=BATCH, show_progress_bar=False))

    encode(WARM_UP)
    serve({"threads": torch.get_num_threads, "encode": encode})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
