"""Writing a model's form for another runtime. Imports the libraries late, in a child."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Embedding
from mos_pipeline.errors import WorkerError
from mos_pipeline.stages.models import ModelFiles
from mos_pipeline.stages.openvino_encoder import EXACT, TOKENIZER, OpenVinoEncoder
from mos_pipeline.stages.sentence_transformer import BROKEN, PROBES, quiet_libraries
from mos_pipeline.stages.variants import SHAPING

__all__ = ["export"]

logger = logging.getLogger(__name__)

CLOSE = 1e-3  # vectors of length 1 that differ by less are the same but for the order of additions
POOLING = ("mean", "cls")
ALONE = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])


def export(settings: Embedding, files: ModelFiles, folder: Path) -> dict[str, Any]:
    """Write the model's form for ``settings.backend`` into ``folder``, by sentence-transformers; return what it tells.

    Returns:
        ``"made"``, seconds since 1970, and ``"alone"``: what ``OpenVinoEncoder`` needs, where that computes the same.

    Raises:
        WorkerError: it can't be exported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of their own affairs
        model = _exported(settings, files)
        model.save_pretrained(str(folder), create_model_card=False)
    told: dict[str, Any] = {"made": time.time()}
    if settings.backend == "openvino" and (alone := _alone(model, folder)) is not None:
        told["alone"] = alone
    return told


def _exported(settings: Embedding, files: ModelFiles) -> Any:
    try:
        from sentence_transformers import SentenceTransformer

        quiet_libraries()
        given = {name: settings.model_kwargs[name] for name in SHAPING if name in settings.model_kwargs}
        backend: Any = settings.backend
        exact = {"ov_config": EXACT} if backend == "openvino" else {}
        return SentenceTransformer(
            str(files.folder),
            device="cpu",
            backend=backend,
            trust_remote_code=settings.trust_remote_code,
            local_files_only=not settings.download,
            **{**given, "model_kwargs": {**exact, **given.get("model_kwargs", {}), "export": True}},
        ).eval()
    except BROKEN as error:
        raise WorkerError(
            f"{files.folder}: the model can't be exported for {settings.backend} ({error}); set embedding.backend to "
            "torch, which computes any"
        ) from error


def _alone(model: Any, folder: Path) -> dict[str, Any] | None:
    """Return what the encoder needs to know to compute this model without its library; None where it can't."""
    kinds = [type(module).__name__ for module in model]
    tokenizer: Any = getattr(model, "tokenizer", None)
    if kinds not in ALONE or not (folder / TOKENIZER).exists() or not model.max_seq_length:
        return None
    if not model[1].include_prompt or tokenizer.padding_side != "right":
        return None
    texts = [*PROBES, "long " * 2 * int(model.max_seq_length)]
    expected = model.encode(texts, prompt="", batch_size=len(texts), show_progress_bar=False, normalize_embeddings=True)
    for pooling in POOLING:
        about = {"longest": int(model.max_seq_length), "pad": int(tokenizer.pad_token_id), "pooling": pooling}
        if _computes(folder, about, texts, expected):
            return about
    return None


def _computes(folder: Path, about: dict[str, Any], texts: list[str], expected: npt.NDArray[np.float32]) -> bool:
    """Does the encoder make these vectors of the texts?"""
    try:
        encoder = OpenVinoEncoder(folder, about, {True: "", False: ""})
        encoder.compile(1)
        found = encoder.encode(encoder.prepare(texts))
    except Exception as error:  # noqa: BLE001  (graphs of other kinds fail in ways of their own; all mean no)
        logger.info("the graph does not work alone (%s)", error)
        return False
    return found.shape == expected.shape and bool(np.abs(found - expected).max() < CLOSE)
