"""The sentence-transformers backend, on the CPU. Imports torch late: this module itself is cheap to import."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline import config
from mos_pipeline.errors import WorkerError
from mos_pipeline.stages.backend import Prepared, Vectors
from mos_pipeline.stages.models import find_model
from mos_pipeline.stages.packed_linear import pack_linears

__all__ = ["SentenceTransformerBackend", "set_environment"]

logger = logging.getLogger(__name__)

PROBES = ("A short text.", "Another one, rather longer than the first, so that padding and its mask come into play.")
SPINS = "10000"
CLOSE = 1e-4  # vectors of length 1 that differ by less come from the same computation


def set_environment(*, download: bool) -> None:
    """Set this process's environment for the model's libraries; before they are imported, and in a child only."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # The model's threads wait for each other many times a batch. Spinning for long, the default, burns the processor
    # that the other one of them needs as soon as anything else runs; never spinning costs the wake-ups. Measured by
    # ``python -m perf embed``.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if not download:
        os.environ["HF_HUB_OFFLINE"] = "1"


class SentenceTransformerBackend:
    """A sentence-transformers model, computed module by module so that each text is split only once.

    Where a model does not take plain token ids (a prompt, another kind of first module), its own ``encode`` is used.
    """

    def __init__(self, settings: config.Embedding) -> None:
        self._settings = settings
        self._model: Any = None
        self._torch: Any = None
        self._split = False  # do we split into word pieces ourselves?

    def load(self) -> dict[str, Any]:
        """Find and load the model; return its identity and the number of threads it uses.

        Raises:
            ModelNotFoundError: it is nowhere to be found.
            WorkerError: its libraries are missing, or it can't be loaded.
        """
        set_environment(download=self._settings.download)
        files = find_model(self._settings.model, download=self._settings.download)
        threads = self._settings.threads or len(os.sched_getaffinity(0))
        packed = self._load(files.folder, threads)
        self._split = self._splits_alike()
        logger.info(
            "%s from %s with %d threads and %d packed layers, through %s",
            files.name,
            files.folder,
            threads,
            packed,
            "its modules" if self._split else "its own encode",
        )
        dimension = len(self.encode(self.prepare(PROBES[:1]))[0])
        return {
            "model": files.name,
            "dimension": dimension,
            "digest": files.digest,
            "backend": "sentence-transformers",
            "precision": "fp32",
            "threads": threads,
        }

    def _load(self, folder: Path, threads: int) -> int:
        """Load the model in ``folder``; return how many of its layers were packed."""
        try:
            import torch
            import tqdm
            import transformers
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise WorkerError(
                f"the embedding libraries can't be imported ({error}); install mos-pipeline anew"
            ) from error
        # Its own would be a named semaphore, which this process, ended without a goodbye, leaves behind.
        tqdm.tqdm.set_lock(threading.RLock())
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        torch.set_num_threads(threads)
        self._torch = torch
        try:
            self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise WorkerError(
                f"{folder}: the model can't be loaded ({error}); name a complete sentence-transformers model"
            ) from error
        expected = self._probe()
        return pack_linears(self._model, lambda: bool(np.abs(self._probe() - expected).max() < CLOSE))

    def _probe(self) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._model.encode(
            list(PROBES), show_progress_bar=False, normalize_embeddings=True
        )
        return found

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Split texts into word pieces, at most as many as the model reads."""
        if not self._split:
            return [Prepared(self._rough_length(text), text) for text in texts]
        return self._pieces(texts)

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        """Return the embeddings, float16 (n, dimension), each of length 1."""
        if self._split:
            found = self._forward(items)
        else:
            texts = [item.content for item in items]
            found = self._model.encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return np.asarray(found, np.float16)

    def _pieces(self, texts: Sequence[str]) -> list[Prepared]:
        if not texts:
            return []
        tokenizer = self._model.tokenizer
        found = tokenizer(list(texts), truncation=True, max_length=self._model.max_seq_length)
        columns = [found[key] for key in found]
        return [Prepared(len(row[0]), dict(zip(found, row, strict=True))) for row in zip(*columns, strict=True)]

    def _forward(self, items: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        torch = self._torch
        with torch.inference_mode():
            features = {key: torch.from_numpy(self._padded(key, items)) for key in items[0].content}
            found = self._model.forward(features)["sentence_embedding"]
            normal: npt.NDArray[np.float32] = torch.nn.functional.normalize(found.float(), dim=1).numpy()
        return normal

    def _padded(self, key: str, items: Sequence[Prepared]) -> npt.NDArray[np.int64]:
        """Return one of the model's inputs, int64 (n, longest)."""
        tokenizer = self._model.tokenizer
        filler = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}.get(key, 0)
        longest = max(item.length for item in items)
        padded = np.full((len(items), longest), filler, np.int64)
        for row, item in zip(padded, items, strict=True):
            if tokenizer.padding_side == "right":
                row[: item.length] = item.content[key]
            else:
                row[longest - item.length :] = item.content[key]
        return padded

    def _splits_alike(self) -> bool:
        """Does this model compute the same from our word pieces as it does by itself?"""
        expected = self._probe()
        try:
            found = self._forward(self._pieces(PROBES))
        except Exception as error:  # noqa: BLE001  (models of other kinds fail in ways of their own; all mean no)
            logger.info("the model does not take plain word pieces (%s)", error)
            return False
        return bool(np.abs(found - expected).max() < CLOSE)

    def _rough_length(self, text: str) -> int:
        return min(len(text) // 4 + 2, self._model.max_seq_length or 512)
