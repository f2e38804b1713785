"""The sentence-transformers backend, on the CPU. Imports torch late: this module itself is cheap to import."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline import config
from mos_pipeline.errors import WorkerError
from mos_pipeline.stages.backend import Prepared, Vectors
from mos_pipeline.stages.model_cache import CachedModel
from mos_pipeline.stages.models import chosen_prompt, find_model, options_of
from mos_pipeline.stages.openvino_encoder import EXACT
from mos_pipeline.stages.packed_linear import pack_linears
from mos_pipeline.stages.tuning import thread_counts
from mos_pipeline.stages.variants import origin

__all__ = [
    "BROKEN",
    "PROBES",
    "SentenceTransformerBackend",
    "quiet_libraries",
    "report_nothing",
    "set_environment",
]

logger = logging.getLogger(__name__)

PROBES = ("A short text.", "Another one, rather longer than the first, so that padding and its mask come into play.")
SPINS = "10000"
CLOSE = 1e-4  # vectors of length 1 that differ by less come from the same computation


def set_environment(*, download: bool) -> None:
    """Set this process up for the model's libraries; before they are imported, and in a child only."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # The model's threads wait for each other many times a batch. Spinning for long, the default, burns the processor
    # that the other one of them needs as soon as anything else runs; never spinning costs the wake-ups. Measured by
    # ``python -m perf embed``.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    report_nothing()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if not download:
        os.environ["HF_HUB_OFFLINE"] = "1"


def report_nothing() -> None:
    """Have the model's libraries report nothing to the network; before they are imported."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # With this OpenVINO's converter and NNCF report usage, unasked; both do without where it can't be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


# What a model that is broken, or of a kind that this version of its library does not know, fails with.
BROKEN = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError)


def quiet_libraries() -> None:
    """Have the model's libraries draw nothing, and leave nothing behind."""
    import tqdm
    import transformers

    # Its own would be a named semaphore, which this process, ended without a goodbye, leaves behind.
    tqdm.tqdm.set_lock(threading.RLock())
    transformers.utils.logging.disable_progress_bar()


def runtime_arguments(backend: str, threads: int) -> dict[str, Any]:
    """Return how another runtime than torch is to compute with so many threads, as its library takes it."""
    if backend == "openvino":
        return {"ov_config": {**EXACT, "INFERENCE_NUM_THREADS": str(threads), "PERFORMANCE_HINT": "LATENCY"}}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {"session_options": options, "provider": "CPUExecutionProvider"}


class SentenceTransformerBackend:
    """A sentence-transformers model, computed module by module so that each text is split only once.

    Where a model does not take plain token ids (another kind of first module, a prompt that is left out of the mean, a
    way of its own for questions), its own ``encode_query`` and ``encode_document`` are used.

    Args:
        variant: the form of the model that ``settings.backend`` computes; None for torch.
    """

    def __init__(self, settings: config.Embedding, variant: CachedModel | None = None) -> None:
        self._settings = settings
        self._variant = variant
        self._model: Any = None
        self._torch: Any = None
        self._split = False  # do we split into word pieces ourselves?
        self._prompts = {True: "", False: ""}  # before questions, and before what is remembered

    def load(self) -> dict[str, Any]:
        """Find and load the model; return its identity and the number of threads it uses.

        Raises:
            ModelNotFoundError: it is nowhere to be found.
            WorkerError: its libraries are missing, or it can't be loaded.
        """
        set_environment(download=self._settings.download)
        settings = self._settings
        revision = settings.model_kwargs.get("revision")
        files = find_model(settings.model, download=settings.download, revision=revision)
        threads = settings.threads or len(os.sched_getaffinity(0))
        told = {**origin(settings, files, settings.precision), "digest": files.digest}
        told |= {} if self._variant is None else self._variant.about
        packed = self._load(files.folder if self._variant is None else self._variant.folder, threads)
        self._choose_prompts()
        self._split = self._splits_alike(query=False) and self._splits_alike(query=True)
        logger.info(
            "%s from %s with %d threads and %d packed layers, through %s",
            files.name,
            files.folder,
            threads,
            packed,
            "its modules" if self._split else "its own encode",
        )
        dimension = len(self.encode(self.prepare(PROBES[:1]))[0])
        changing = {"document_prompt": self._prompts[False], "options": options_of(settings)}
        return {
            "model": files.name,
            "dimension": dimension,
            "digest": told["digest"],
            "backend": told["backend"],
            "precision": told["precision"],
            "threads": threads,
            **{name: value for name, value in changing.items() if value},
        }

    def threads_to_try(self, cores: int) -> tuple[int, ...]:
        """Return the numbers of threads that are worth a try; another runtime's are settled when it loads."""
        return thread_counts(cores) if self._variant is None else (cores,)

    def use_threads(self, threads: int) -> None:
        """Have torch compute with so many threads."""
        self._torch.set_num_threads(threads)

    def _load(self, folder: Path, threads: int) -> int:
        """Load the model in ``folder``; return how many of its layers were packed."""
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise WorkerError(
                f"the embedding libraries can't be imported ({error}); install mos-pipeline anew"
            ) from error
        quiet_libraries()
        torch.set_num_threads(threads)
        self._torch = torch
        try:
            self._model = SentenceTransformer(
                str(folder),
                **{"device": "cpu", **self._arguments(threads)},
                trust_remote_code=self._settings.trust_remote_code,
                local_files_only=not self._settings.download,
            ).eval()
            expected = self._probe()
        except BROKEN as error:
            raise WorkerError(
                f"{folder}: the model can't be loaded ({error}); name a complete sentence-transformers model, and look "
                "at embedding.model_kwargs"
            ) from error
        if self._variant is not None:
            return 0
        return pack_linears(self._model, lambda: bool(np.abs(self._probe() - expected).max() < CLOSE))

    def _arguments(self, threads: int) -> dict[str, Any]:
        """Return what the model's constructor is given."""
        given = {name: value for name, value in self._settings.model_kwargs.items() if name != "revision"}
        if self._variant is None:
            return given
        own = {"export": False, **runtime_arguments(self._settings.backend, threads)}
        return {**given, "backend": self._settings.backend, "model_kwargs": {**own, **given.get("model_kwargs", {})}}

    def _choose_prompts(self) -> None:
        own, default = dict(self._model.prompts), self._model.default_prompt_name
        for query, wanted in ((True, self._settings.query_prompt), (False, self._settings.document_prompt)):
            self._prompts[query] = chosen_prompt(wanted, own, default, query=query)

    def _probe(self, *, query: bool = False) -> npt.NDArray[np.float32]:
        return self._encoded(PROBES, query=query)

    def _encoded(self, texts: Sequence[str], *, query: bool) -> npt.NDArray[np.float32]:
        """Return the vectors as the model's library makes them, of length 1."""
        encode = self._model.encode_query if query else self._model.encode_document
        found = encode(list(texts), prompt=self._prompts[query], batch_size=len(texts), show_progress_bar=False)
        found = np.asarray(found, np.float32)
        normal: npt.NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return normal

    def prepare(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:
        """Split texts into word pieces, at most as many as the model reads."""
        if not self._split:
            return [Prepared(self._rough_length(text), (text, query)) for text in texts]
        return self._pieces(texts, query=query)

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        """Return the embeddings, float16 (n, dimension), each of length 1.

        Raises:
            ValueError: the model computes something that is no number.
        """
        found = self._forward(items) if self._split else self._in_its_own_way(items)
        if not np.isfinite(found).all():
            raise ValueError("the model's vector is not of numbers")
        return found.astype(np.float16)

    def _in_its_own_way(self, items: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        by_kind = {query: [at for at, item in enumerate(items) if item.content[1] is query] for query in (True, False)}
        found = {
            query: self._encoded([items[at].content[0] for at in places], query=query)
            for query, places in by_kind.items()
            if places
        }
        places = np.argsort(np.concatenate([by_kind[query] for query in found]))
        return np.concatenate(list(found.values()))[places]

    def _pieces(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:
        if not texts:
            return []
        tokenizer, prompt = self._model.tokenizer, self._prompts[query]
        prompted = [prompt + text for text in texts]
        found = tokenizer(prompted, truncation=True, max_length=self._model.max_seq_length)
        columns = [found[key] for key in found]
        return [Prepared(len(row[0]), dict(zip(found, row, strict=True))) for row in zip(*columns, strict=True)]

    def _forward(self, items: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        torch = self._torch
        with torch.inference_mode():
            device = self._model.device
            features = {key: torch.from_numpy(given).to(device) for key, given in self.inputs(items).items()}
            found = self._model.forward(features)["sentence_embedding"][:, : self._model.truncate_dim]
            normal: npt.NDArray[np.float32] = torch.nn.functional.normalize(found.float(), dim=1).cpu().numpy()
        return normal

    def inputs(self, items: Sequence[Prepared]) -> dict[str, npt.NDArray[np.int64]]:
        """Return what the model's first module takes, each int64 (n, longest)."""
        return {key: self._padded(key, items) for key in items[0].content}

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

    def _splits_alike(self, *, query: bool) -> bool:
        """Does this model compute the same from our word pieces as it does by itself?"""
        expected = self._probe(query=query)
        try:
            found = self._forward(self._pieces(PROBES, query=query))
        except Exception as error:  # noqa: BLE001  (models of other kinds fail in ways of their own; all mean no)
            logger.info("the model does not take plain word pieces (%s)", error)
            return False
        return found.shape == expected.shape and bool(np.abs(found - expected).max() < CLOSE)

    def _rough_length(self, text: str) -> int:
        longest = self._model.max_seq_length or 512
        return int(min(len(text) // 4 + 2, longest))
