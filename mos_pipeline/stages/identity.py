"""Whose vectors a store has: what tells one model from another, and what is said where the wrong one is configured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mos_pipeline.config import Embedding
from mos_pipeline.errors import ModelMismatchError, ModelNotFoundError
from mos_pipeline.stages.fake_backend import FakeBackend
from mos_pipeline.stages.models import chosen_prompt, find_model, options_of, prompts_in
from mos_pipeline.stages.variants import quantised

__all__ = [
    "changed_model",
    "check_configured",
    "expected_identity",
    "identity_of",
    "mismatch",
    "names_it",
    "same_vectors",
    "settings_of",
]

Identity = Mapping[str, Any]

# A model keeps its vectors under another name, and whatever computes the same weights: what counts is their digest.
COUNTS = ("dimension", "digest", "precision", "tier", "distilled_from", "document_prompt", "options")
IDENTITY = ("model", "backend", *COUNTS)
FORMERLY = {"sentence-transformers": "torch"}  # backends by the names that stores may still have
SHOWN_DIGEST = 12


def identity_of(info: Identity) -> dict[str, Any]:
    """Return the identity in what an embedder tells when it is ready."""
    return {key: info[key] for key in IDENTITY if key in info}


def same_vectors(one: Identity, other: Identity) -> bool:
    """Return whether vectors of these two may be compared."""
    return not _different(one, other, COUNTS)


def changed_model(before: Identity, now: Identity) -> str:
    """Return what is said where an embedder makes other vectors ``now`` than the one ``before`` it; else nothing."""
    if same_vectors(before, now):
        return ""
    return (
        f"it has loaded another model ({now['model']}, SHA-256 {now['digest'][:SHOWN_DIGEST]}…) than the one before it "
        f"({before['model']}, {before['digest'][:SHOWN_DIGEST]}…): its files were changed meanwhile. Pages are kept; "
        "bring the model back and open the store again, or have its vectors made again: reembed=True"
    )


def _different(one: Identity, other: Identity, keys: tuple[str, ...]) -> list[str]:
    return [key for key in keys if one.get(key) != other.get(key)]


def expected_identity(settings: Embedding, digest: str = "") -> dict[str, Any]:
    """Return what can be told of the configured model without loading it.

    Its dimension is left out, unless it is fake; and a static one's digest, which has that of its origin instead.

    Args:
        settings: the configured model's.
        digest: of the store's model: which of several quantised forms in the cache is meant.

    Raises:
        ModelNotFoundError: it is nowhere to be found, or has no quantised form where one is configured.
    """
    if settings.backend == "fake":
        return identity_of(FakeBackend(settings).load())
    files = find_model(settings.model, download=settings.download, revision=settings.model_kwargs.get("revision"))
    if settings.tier != "full":  # its own digest is known once it is made
        return {"model": files.name, "distilled_from": files.digest, **_kind(settings)}
    told = {"document_prompt": _document_prompt(settings, files.folder), "options": options_of(settings)}
    kind = _kind(settings)
    weights = quantised(settings, files, digest).about["digest"] if kind["precision"] == "int8" else files.digest
    known = {"model": files.name, "digest": weights, **kind}
    return known | {key: value for key, value in told.items() if value}


def _kind(settings: Embedding) -> dict[str, Any]:
    """Return what the settings alone tell."""
    if settings.tier == "full":
        return {"backend": settings.backend, "precision": settings.precision}
    return {"backend": "torch", "precision": "fp32", "tier": settings.tier}


def settings_of(stored: Identity) -> dict[str, Any]:
    """Return the settings that a store's model is opened with, as overrides of the configured ones."""
    backend = FORMERLY.get(stored["backend"], stored["backend"])
    own = {
        "embedding__backend": backend,
        "embedding__precision": stored["precision"],
        "embedding__tier": stored.get("tier", "full"),
        "embedding__document_prompt": stored.get("document_prompt", ""),
    }
    if backend == "fake":
        return own | {"embedding__fake_dimension": stored["dimension"]}
    return own | {"embedding__model": stored["model"], "embedding__model_kwargs": stored.get("options", {})}


def _document_prompt(settings: Embedding, folder: Path) -> str:
    own, default = prompts_in(folder)
    own = {**own, **settings.model_kwargs.get("prompts", {})}
    return chosen_prompt(settings.document_prompt, own, default, query=False)


def names_it(settings: Embedding, stored: Identity) -> bool:
    """Return whether the configured model is ``stored``, as far as can be told without loading it.

    Raises:
        ModelNotFoundError: it is nowhere to be found.
    """
    return same_vectors(
        {**stored, "document_prompt": None, "options": None, **expected_identity(settings, stored["digest"])}, stored
    )


def check_configured(root: Path, stored: Identity, settings: Embedding) -> None:
    """Refuse what can be told to be another model before any process is started, and without reading its weights.

    They are read where a folder has another name than the store's model. What is not noticed here, the embedder tells.

    Raises:
        ModelMismatchError: it is another model.
    """
    try:
        configured = _configured(stored, settings)
    except ModelNotFoundError:
        return  # the embedder says so
    if _different(stored, configured, tuple(configured)):
        raise mismatch(root, stored, configured)


def _configured(stored: Identity, settings: Embedding) -> dict[str, Any]:
    """Return what is known of the configured model at once; the store's name where it is the same model by another."""
    if settings.backend == "fake":
        return expected_identity(settings)
    kind = {"tier": None, **_kind(settings)}
    if stored["backend"] == "fake":
        return {"model": settings.model, **kind}
    kind["backend"] = stored["backend"]  # any of them computes the same
    folder = Path(settings.model)
    known = {stored["model"], stored["model"].rpartition("/")[2]}
    if not folder.is_dir():
        name = stored["model"] if settings.model in known else settings.model
        return {"model": name, **_changes(settings), **kind}
    if folder.resolve().name not in known:
        found = {**expected_identity(settings, stored["digest"]), **kind}
        return found | ({"model": stored["model"]} if _origin(found) == _origin(stored) else {})
    return {"model": stored["model"], **_changes(settings, folder), **kind}


def _origin(identity: Identity) -> Any:
    """Return the digest of the model itself, or of the one that it was distilled from."""
    return identity.get("distilled_from", identity.get("digest"))


def _changes(settings: Embedding, folder: Path | None = None) -> dict[str, Any]:
    """Return what beside the weights changes vectors; a static model has nothing of the kind."""
    if settings.tier != "full":
        return {"options": None, "document_prompt": None}
    prompt = {} if folder is None else {"document_prompt": _document_prompt(settings, folder) or None}
    return {"options": options_of(settings) or None, **prompt}


def mismatch(root: Path, stored: Identity, configured: Identity) -> ModelMismatchError:
    """Return the error that says which model the store has, which is configured, and the two ways on."""
    keys = _different(stored, configured, tuple(key for key in IDENTITY if key in stored or key in configured))
    keys = [key for key in keys if key in configured or key in ("document_prompt", "options")]
    wrong = ", ".join(f"{key} {_value(stored, key)} there, {_value(configured, key)} here" for key in keys)
    return ModelMismatchError(
        f"{root}: its vectors were made by {_shown(stored)}, and {_shown({**stored, **configured})} is configured "
        f"({wrong}); pages are kept, and vectors of two models are never compared. Set embedding.model, and what else "
        f"differs, to the store's; or have its vectors made again by the configured model: `mos-pipeline reembed "
        f"--store {root}`, or MemoryPipeline.open(..., reembed=True)"
    )


def _value(identity: Identity, key: str) -> str:
    return repr(identity.get(key) or ("full" if key == "tier" else None))


def _shown(identity: Identity) -> str:
    return f"{identity['model']} ({identity.get('tier') or identity['backend']})"
