"""Making a model's quantised form, and measuring what that costs before it is kept. A stage of its own, in a child.

Weights and activations become whole numbers of 8 bits (static post-training quantisation by NNCF for OpenVINO: the
activations' ranges are learned from texts; dynamic for ONNX Runtime, which learns them as it goes). What changes is
measured against the fp32 form by the cosines of the same texts' vectors, and by recall@10 of questions whose evidence
is known, in the ranking by cosine alone: what words find does not depend on the model.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Embedding
from mos_pipeline.errors import WorkerError
from mos_pipeline.runtime.worker import Report
from mos_pipeline.stages.backend import Backend, readable
from mos_pipeline.stages.model_cache import CachedModel, find_cached, make_cached
from mos_pipeline.stages.models import ModelFiles, find_model
from mos_pipeline.stages.openvino_encoder import GRAPH
from mos_pipeline.stages.sentence_transformer import BROKEN, set_environment
from mos_pipeline.stages.variant_backend import VariantBackend
from mos_pipeline.stages.variants import cache_of, entry_name, graph_digest, origin, versions

__all__ = ["Bounds", "OptimiseStage", "Talk", "compared", "recall"]

logger = logging.getLogger(__name__)

AT = 10  # recall@10
BATCH = 16  # texts, of about the same length

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Talk:
    """Pages that are searched together, and questions about them.

    Attributes:
        questions: (text, places of the pages that are its evidence).
    """

    pages: list[str]
    questions: list[tuple[str, list[int]]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a quantised form must keep of the fp32 one to be kept itself.

    Attributes:
        cosine: the least mean cosine.
        recall: recall@10 that may be lost at most, 0 to 1.
        kept: is it kept even so?
    """

    cosine: float
    recall: float
    kept: bool = False

    def met(self, told: Mapping[str, Any]) -> bool:
        """Return whether what was measured is within them."""
        return bool(told["cosine_mean"] >= self.cosine and told["recall_fp32"] - told["recall_int8"] <= self.recall)


class _NotKeptError(Exception):
    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__("it is not within its bounds")
        self.told = told


class OptimiseStage:
    """Does everything in ``prepare``; there are no units.

    Args:
        settings: name the model, the backend and the cache.
        texts: to calibrate on.
        talks: to measure with.
    """

    def __init__(self, settings: Embedding, texts: Sequence[str], talks: Sequence[Talk], bounds: Bounds) -> None:
        self._settings = replace(settings, precision="int8", tier="full")
        self._bounds = bounds
        self._texts = self._readable(texts)
        self._talks = [
            Talk(
                self._readable(talk.pages),
                [(readable(text, settings.max_chars), places) for text, places in talk.questions],
            )
            for talk in talks
        ]

    def _readable(self, texts: Sequence[str]) -> list[str]:
        return [readable(text, self._settings.max_chars) for text in texts]

    def prepare(self) -> dict[str, Any]:
        """Make the quantised form, unless it is there; return what it tells, ``"folder"``, and is it ``"kept"``?

        ``"within"`` tells whether it is within the bounds. One that is there stays even where it is not: stores may be
        bound to it.

        Raises:
            WorkerError: a library is missing, or the model can't be quantised.
            ModelNotFoundError: the model is nowhere, or the cache can't be written.
        """
        settings = self._settings
        set_environment(download=settings.download)
        made_by = versions(settings.backend, *(("nncf",) if settings.backend == "openvino" else ()))
        revision = settings.model_kwargs.get("revision")
        files = find_model(settings.model, download=settings.download, revision=revision)
        made_from = origin(settings, files, "int8")
        if settings.backend == "onnx":
            self._texts = []  # nothing is learned from them
        name, cache = entry_name(made_from, made_by, _digest(self._texts)), cache_of(settings)
        begun = time.monotonic()
        found = find_cached(cache, name)
        if found is not None:  # measured once more: maybe with other questions
            told = {**found.about, **self._measured(files, found, self._plain(files))}
            return self._outcome(told, found, begun)
        told = {**made_from, "versions": made_by, "texts": len(self._texts)}
        try:
            found = make_cached(cache, name, lambda folder: self._made(files, folder, told))
        except _NotKeptError as error:
            return self._outcome(error.told, None, begun)
        return self._outcome(found.about, found, begun)

    def _outcome(self, told: Mapping[str, Any], kept: CachedModel | None, begun: float) -> dict[str, Any]:
        outcome = {"folder": str(kept.folder) if kept else "", "kept": kept is not None}
        return {**told, **outcome, "within": self._bounds.met(told), "seconds": time.monotonic() - begun}

    def _made(self, files: ModelFiles, folder: Path, told: dict[str, Any]) -> dict[str, Any]:
        """Quantise into ``folder`` and measure."""
        plain, loaded = self._plain(files)
        logger.info("quantising, with %d texts to learn from", len(self._texts))
        shutil.copytree(plain.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin", "*.onnx*"))
        try:
            _quantise(self._settings, plain, folder, self._texts, loaded)
        except BROKEN as error:
            raise WorkerError(
                f"{plain.folder}: the model can't be quantised ({error}); set embedding.precision to fp32"
            ) from error
        kept = {name: plain.about[name] for name in ("alone",) if name in plain.about}
        told = {**told, **kept, "made": time.time(), "digest": graph_digest(folder)}
        told |= self._measured(files, CachedModel(folder, told), (plain, loaded))
        if not (self._bounds.kept or self._bounds.met(told)):
            raise _NotKeptError(told)
        return told

    def _plain(self, files: ModelFiles) -> tuple[CachedModel, VariantBackend]:
        """Return the fp32 form, and a backend with it loaded."""
        settings = replace(self._settings, precision="fp32")
        backend = VariantBackend(settings)
        form = backend.form(files)
        backend.load_form(files, form)
        return form, backend

    def _measured(
        self, files: ModelFiles, form: CachedModel, plain: tuple[CachedModel, VariantBackend]
    ) -> dict[str, Any]:
        small = VariantBackend(self._settings)
        small.load_form(files, form)
        return compared(plain[1], small, self._talks)

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:  # noqa: ARG002 (a stage's)
        """Refuse: there are no units."""
        raise ValueError(f"there is no work of kind {kind!r} here")

    @property
    def pending(self) -> bool:
        """Nothing ever is."""
        return False

    def step(self, report: Report) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()


def _quantise(
    settings: Embedding, plain: CachedModel, folder: Path, texts: Sequence[str], loaded: VariantBackend
) -> None:
    if settings.backend == "onnx":
        _quantise_onnx(plain, folder)
        return
    import nncf
    import openvino

    if not (plain.folder / GRAPH).exists():
        raise ValueError("it has no graph of OpenVINO's")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    graph = openvino.Core().read_model(plain.folder / GRAPH)
    names = [port.get_any_name() for port in graph.inputs]

    def inputs(text: str) -> dict[str, Any]:
        given = loaded.inputs(loaded.prepare([text]))
        nothing = np.zeros_like(given["input_ids"])  # what a tokenizer does not tell, as its library takes it
        return {name: given.get(name, nothing) for name in names}

    # Mixed: activations unsymmetrically, since what leaves a GELU lies on one side of 0; symmetrical ones lose cosine.
    found = nncf.quantize(
        graph,
        nncf.Dataset(list(texts), inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(texts),
    )
    openvino.save_model(found, folder / GRAPH, compress_to_fp16=False)


def _quantise_onnx(plain: CachedModel, folder: Path) -> None:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    how = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True, operators_to_quantize=["MatMul"])
    quantizer = ORTQuantizer.from_pretrained(plain.folder / "onnx", file_name="model.onnx")
    quantizer.quantize(how, save_dir=folder / "onnx", file_suffix="")


def compared(fp32: Backend, int8: Backend, talks: Sequence[Talk]) -> dict[str, Any]:
    """Return how close the vectors of two backends are, and what each of them finds.

    Returns:
        ``"cosine_mean"`` and ``"cosine_least"`` over all texts; ``"recall_fp32"`` and ``"recall_int8"``, recall@10 over
        all questions; how many ``"pages"`` and ``"questions"`` there were.
    """
    found = [
        [(_vectors(backend, talk.pages, query=False), _asked(backend, talk)) for talk in talks]
        for backend in (fp32, int8)
    ]
    both = [np.concatenate([np.concatenate(each) for each in of_one]) for of_one in found]
    cosines = (both[0] * both[1]).sum(axis=1)
    recalls = [
        np.concatenate(
            [recall(pages, asked, talk.questions) for (pages, asked), talk in zip(of_one, talks, strict=True)]
        )
        for of_one in found
    ]
    return {
        "cosine_mean": round(float(cosines.mean()), 5),
        "cosine_least": round(float(cosines.min()), 5),
        "recall_fp32": round(float(recalls[0].mean()), 4),
        "recall_int8": round(float(recalls[1].mean()), 4),
        "pages": sum(len(talk.pages) for talk in talks),
        "questions": len(recalls[0]),
    }


def recall(pages: Vectors, asked: Vectors, questions: Sequence[tuple[str, Sequence[int]]]) -> npt.NDArray[np.float64]:
    """Return recall@10 of each question, (q,): the share of its evidence among the ten pages of the highest cosine.

    Args:
        pages: float32 (n, dimension), each of length 1.
        asked: likewise, of the questions, (q, dimension).
        questions: (text, places of the pages that are its evidence), q of them.
    """
    best = np.argsort(-(asked @ pages.T), axis=1, kind="stable")[:, :AT]
    shares = [
        len(set(evidence) & set(row.tolist())) / len(set(evidence))
        for row, (_, evidence) in zip(best, questions, strict=True)
    ]
    return np.array(shares)


def _asked(backend: Backend, talk: Talk) -> Vectors:
    return _vectors(backend, [text for text, _ in talk.questions], query=True)


def _vectors(backend: Backend, texts: Sequence[str], *, query: bool) -> Vectors:
    items = backend.prepare(texts, query=query)
    order = sorted(range(len(items)), key=lambda place: items[place].length)
    parts = [order[begun : begun + BATCH] for begun in range(0, len(order), BATCH)]
    found = np.concatenate([backend.encode([items[place] for place in part]) for part in parts]).astype(np.float32)
    vectors = np.empty_like(found)
    vectors[np.concatenate(parts)] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return vectors
