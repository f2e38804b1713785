"""The backends whose form of the model is made first: exported at its first use, quantised by a command."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline import config
from mos_pipeline.errors import WorkerError
from mos_pipeline.stages.backend import Prepared, Vectors
from mos_pipeline.stages.export_model import export
from mos_pipeline.stages.model_cache import CachedModel
from mos_pipeline.stages.models import ModelFiles, chosen_prompt, find_model, options_of, prompts_in
from mos_pipeline.stages.openvino_encoder import OpenVinoEncoder
from mos_pipeline.stages.sentence_transformer import SentenceTransformerBackend, set_environment
from mos_pipeline.stages.tuning import thread_counts
from mos_pipeline.stages.variants import exported, graph_digest, quantised, versions

__all__ = ["VariantBackend"]

logger = logging.getLogger(__name__)

THE_LIBRARYS_OWN = frozenset({"tokenizer_kwargs", "processor_kwargs", "device", "model_kwargs", "config_kwargs"})


class VariantBackend:
    """A model's form for OpenVINO or ONNX Runtime.

    Where the exported graph, a mean and a scaling are all that there is to a model, and OpenVINO is to compute it, it
    does so alone: torch is not even imported. Any other goes through sentence-transformers.

    Args:
        digest: of the quantised weights that are meant, where there are several.
    """

    def __init__(self, settings: config.Embedding, digest: str = "") -> None:
        self._settings = settings
        self._digest = digest
        self._inner: OpenVinoEncoder | SentenceTransformerBackend

    def load(self) -> dict[str, Any]:
        """Find the model's form, export it where there is none yet, and load it; return its identity and the threads.

        Raises:
            ModelNotFoundError: there is no such model, or no quantised form of it.
            WorkerError: a library is missing, or the model can't be exported or loaded.
        """
        settings = self._settings
        set_environment(download=settings.download)
        versions(settings.backend)
        revision = settings.model_kwargs.get("revision")
        files = find_model(settings.model, download=settings.download, revision=revision)
        return self.load_form(files, self.form(files))

    def load_form(self, files: ModelFiles, entry: CachedModel) -> dict[str, Any]:
        """Load this form of the model in ``files``, as ``load`` does the one that it finds."""
        settings = self._settings
        if not entry.about.get("alone") or THE_LIBRARYS_OWN & settings.model_kwargs.keys():
            self._inner = through = SentenceTransformerBackend(settings, entry)
            return through.load()
        return self._load_alone(files, entry)

    def form(self, files: ModelFiles) -> CachedModel:
        """Return the form of the model in ``files`` that is configured; export it where there is none yet.

        Raises:
            ModelNotFoundError, WorkerError: as from ``load``; or the quantised one is not what it was.
        """
        settings = self._settings
        if settings.precision == "int8":
            return _unchanged(quantised(settings, files, self._digest))

        def make(folder: Path) -> dict[str, Any]:
            logger.info("%s is exported for %s, once", files.name, settings.backend)
            return export(settings, files, folder)

        return exported(settings, files, make)

    def _load_alone(self, files: ModelFiles, entry: CachedModel) -> dict[str, Any]:
        settings = self._settings
        own, default = prompts_in(entry.folder)
        own = {**own, **settings.model_kwargs.get("prompts", {})}
        wanted = {True: settings.query_prompt, False: settings.document_prompt}
        prompts = {query: chosen_prompt(text, own, default, query=query) for query, text in wanted.items()}
        threads = settings.threads or len(os.sched_getaffinity(0))
        keep = settings.model_kwargs.get("truncate_dim")
        try:
            encoder = OpenVinoEncoder(entry.folder, entry.about["alone"], prompts, keep)
            encoder.compile(threads)
        except (OSError, ValueError, RuntimeError) as error:
            raise WorkerError(
                f"{entry.folder}: the model can't be loaded ({error}); delete that folder, and have it made again"
            ) from error
        self._inner = encoder
        logger.info("%s from %s with %d threads, through OpenVINO alone", files.name, entry.folder, threads)
        changing = {"document_prompt": prompts[False], "options": options_of(settings)}
        return {
            "model": files.name,
            "dimension": len(self.encode(self.prepare(["one"]))[0]),
            "digest": entry.about["digest"],
            "backend": settings.backend,
            "precision": settings.precision,
            "threads": threads,
            **{name: value for name, value in changing.items() if value},
        }

    @property
    def divides(self) -> bool:
        """Whether a batch is divided into parts of like length; sentence-transformers computes it as a whole."""
        return isinstance(self._inner, OpenVinoEncoder)

    def taken(self, length: int) -> int:
        """Return how many word pieces are computed for a text of ``length``."""
        return self._inner.taken(length) if isinstance(self._inner, OpenVinoEncoder) else length

    def threads_to_try(self, cores: int) -> tuple[int, ...]:
        """Return the numbers of threads that are worth a try."""
        return thread_counts(cores) if isinstance(self._inner, OpenVinoEncoder) else (cores,)

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads; where sentence-transformers loads the model, that is settled by then."""
        if isinstance(self._inner, OpenVinoEncoder):
            self._inner.compile(threads)

    def prepare(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:
        """Split texts into word pieces, at most as many as the model reads."""
        return self._inner.prepare(texts, query=query)

    def inputs(self, items: Sequence[Prepared]) -> dict[str, npt.NDArray[np.int64]]:
        """Return what the model's graph takes, each int64 (n, longest)."""
        return self._inner.inputs(items)

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        """Return the embeddings, float16 (n, dimension), each of length 1.

        Raises:
            ValueError: the model computes something that is no number.
        """
        found = self._inner.encode(items)
        if not np.isfinite(found).all():
            raise ValueError("the model's vector is not of numbers")
        return found.astype(np.float16)


def _unchanged(entry: CachedModel) -> CachedModel:
    """Return ``entry``, whose weights have the digest that it tells: vectors are told apart by that."""
    if graph_digest(entry.folder) != entry.about["digest"]:
        raise WorkerError(
            f"{entry.folder}: the weights there are not those that were made; bring that folder back from a backup, or "
            "delete it, and make it again: mos-pipeline optimize-model"
        )
    return entry
