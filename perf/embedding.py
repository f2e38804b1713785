"""The embedder's backend in a process of its own, without the embedder around it."""

from __future__ import annotations

import sys
from unittest.mock import patch

from mos_pipeline import config
from mos_pipeline.stages import sentence_transformer
from perf.children import serve
from perf.timing import seconds

__all__ = ["main"]


def main(kind: str) -> None:
    """Load the model, with its weights packed or (``plain``) not, and encode batches for the parent."""
    if kind == "plain":
        patch.object(sentence_transformer, "pack_linears", return_value=0).start()
    backend = sentence_transformer.SentenceTransformerBackend(config.Embedding())
    backend.load()

    def encode(texts: int, words: int) -> float:
        items = backend.prepare([" ".join(["the"] * words)] * texts)
        return seconds(lambda: backend.encode(items))

    serve({"encode": encode})


if __name__ == "__main__":
    main(sys.argv[1])
