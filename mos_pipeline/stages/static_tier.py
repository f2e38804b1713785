"""The static tier's model: a table of word pieces, distilled once from the configured model, and where it is kept.

model2vec has the model embed each piece of its vocabulary by itself, turns the vectors to their principal components,
keeps the first of them, and weights each piece by how rare it is: a / (a + p), with p by Zipf's law from its place in
the vocabulary (smooth inverse frequency; Arora et al. 2017). Then what typical pages have in common is taken away. A
text's vector is the mean of its pieces'.

It is looked for in the store, whose vectors it made, then in the cache of models made from others. The store gets a
copy: another machine, or another version of the libraries, may distil one that differs in its last bits, and vectors
are only compared with those of the very same.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Embedding
from mos_pipeline.errors import ModelNotFoundError, WorkerError
from mos_pipeline.messages import embedded_text
from mos_pipeline.stages.model_cache import CachedModel, cache_folder, find_cached, make_cached
from mos_pipeline.stages.models import ModelFiles, find_model
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.models import digest_of, model_name, model_of, wrong_with_model

__all__ = ["StaticHome", "find_static", "static_name"]

logger = logging.getLogger(__name__)

SAMPLE = "sample/conversation.jsonl"
# Measured: docs/decisions/0026-static-tier.md.
DIMENSION = 256  # at most
SIF = 1e-4  # a
MOST_PIECES = 128  # of a text: what a long page is about stands at its beginning
RECIPE = f"{DIMENSION}-{SIF:g}-{MOST_PIECES}-2"
MEND = (
    "bring that folder back from a backup of the store, or have the store's vectors made again: open it with "
    "reembed=True, or `mos-pipeline reembed`; until then its pages are found by their words"
)


class StaticHome(NamedTuple):
    """The store that a static model is for.

    Attributes:
        root: its folder.
        writes: whether a static model may be put there: the store is this process's, or its parent's.
        anew: whether the model is to be the store's next one, and not that of the vectors there.
    """

    root: Path
    writes: bool = True
    anew: bool = False


def find_static(settings: Embedding, home: StaticHome | None) -> CachedModel:
    """Return the static model: the store's own, else the cache's, else one distilled now; the store gets a copy.

    Raises:
        ModelNotFoundError: the model to distil from is nowhere; or the store's vectors were made with a static model
            that is nowhere any more.
        WorkerError: model2vec is not installed, or can't distil that model.
        StoreError: the store's MANIFEST can't be read.
    """
    if home is None:
        return _made(settings)
    folder = StoreFolder(home.root)
    identity = None if home.anew else Manifest.load(folder).embedding
    own = model_of(folder, identity)
    if own is not None and identity is not None:
        reason = wrong_with_model(folder, identity)
        if not reason:
            return CachedModel(own, identity)  # MANIFEST has a checksum, and tells of it whatever lies beside it
        logger.warning("%s: %s", own, reason)
    try:
        found = _made(settings)
    except ModelNotFoundError as error:
        raise error if own is None else _lost(own, str(error)) from error
    if own is not None and identity is not None and identity["digest"] != found.about["digest"]:
        raise _lost(own, f"another one was distilled on this machine, in {found.folder}")
    return _keep(found, folder.models) if home.writes else found


def _made(settings: Embedding) -> CachedModel:
    """Return the static model from the cache; distilled now where it is not there."""
    revision = settings.model_kwargs.get("revision")
    base = find_model(settings.model, download=settings.download, revision=revision)
    cache = cache_folder(settings.cache_dir)
    name = static_name(base)
    return _sound(cache, name) or make_cached(cache, name, partial(_distil, base, settings))


def static_name(base: ModelFiles) -> str:
    """Return the name that the cache has for the static model distilled from ``base``."""
    return f"static-{base.digest[:32]}-{RECIPE}"


def _lost(own: Path, why: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{own}: the static model that made the store's vectors is missing or damaged ({why}); {MEND}"
    )


def _sound(folder: Path, name: str) -> CachedModel | None:
    """Return the model of that name where it is whole; a damaged one is deleted, as another takes its place."""
    try:
        found = find_cached(folder, name)
        if found is None and not (folder / name).exists():
            return None
        if found is not None and found.about["digest"] == digest_of(found.folder):
            return found
        reason = "it is not what it was"
    except (ModelNotFoundError, OSError, KeyError, TypeError) as error:
        reason = str(error)
    logger.warning("%s: the static model can't be used (%s)", folder / name, reason)
    shutil.rmtree(folder / name, ignore_errors=True)
    return None


def _keep(found: CachedModel, folder: Path) -> CachedModel:
    """Return a copy in the store's ``folder``."""

    def copy(into: Path) -> dict[str, Any]:
        shutil.copytree(found.folder, into, dirs_exist_ok=True)
        return found.about

    name = model_name(found.about["digest"])
    return _sound(folder, name) or make_cached(folder, name, copy)


def _distil(base: ModelFiles, settings: Embedding, folder: Path) -> dict[str, Any]:
    """Distil a static model into ``folder``, saved as sentence-transformers' StaticEmbedding; return what tells of it.

    Raises:
        WorkerError: model2vec is not installed, or can't distil that model.
    """
    os.environ["TQDM_DISABLE"] = "1"
    try:
        import model2vec.distill
        import torch
        import tqdm
        import transformers
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    except ImportError as error:
        raise WorkerError(
            f"embedding.tier static: {base.name} can't be distilled without model2vec ({error}); "
            "pip install 'mos-pipeline[static]'"
        ) from error
    tqdm.tqdm.set_lock(threading.RLock())  # its own would be a named semaphore, which a killed process leaves behind
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
    logger.info("distilling a static model from %s, once: some seconds, minutes on a busy machine", base.folder)
    begun = time.monotonic()
    try:
        made = model2vec.distill.distill(
            str(base.folder),
            device="cpu",
            pca_dims=DIMENSION,
            sif_coefficient=SIF,
            trust_remote_code=settings.trust_remote_code,
            quantize_to="float32",
        )
        made.tokenizer.no_padding()
        made.tokenizer.enable_truncation(MOST_PIECES)
        table = _centred(np.asarray(made.embedding, np.float32), made.tokenizer).astype(np.float16)
        static = StaticEmbedding(made.tokenizer, embedding_weights=table)
        SentenceTransformer(modules=[static, Normalize()], device="cpu").save(str(folder), create_model_card=False)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        raise WorkerError(
            f"{base.folder}: model2vec can't distil this model ({error}); set embedding.tier to full, or name another "
            "model"
        ) from error
    logger.info("distilled in %.1f s", time.monotonic() - begun)
    told = {"model": base.name, "distilled_from": base.digest, "dimension": table.shape[1]}
    return {**told, "digest": digest_of(folder), "model2vec": version("model2vec")}


def _centred(table: npt.NDArray[np.float32], tokenizer: Any) -> npt.NDArray[np.float32]:
    """Return the table, (pieces, dimension), less the mean row of the pieces in pages that were written as samples.

    Without it any two pages are alike, by the words that stand in all of them, and no threshold of a cosine that fits
    the model itself fits its static one.
    """
    counts = np.zeros(len(table), np.float32)
    for found in tokenizer.encode_batch(_sample_pages(), add_special_tokens=False):
        np.add.at(counts, found.ids, 1)
    centred: npt.NDArray[np.float32] = table - counts @ table / max(counts.sum(), 1)
    return centred


def _sample_pages() -> list[str]:
    lines = (files("mos_pipeline") / SAMPLE).read_text(encoding="utf-8").splitlines()
    pages = [json.loads(line) for line in lines]
    return [embedded_text(page["user_input"], page["agent_response"]) for page in pages]
