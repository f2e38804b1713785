"""Static models that vectors in a store were made with: small, and kept in it, so that it opens wherever it is moved.

A static model is distilled from another one, and not every machine makes the same one of it to the last bit. So the
store has a folder of its own for it, named by the digest that is in the vectors' identity.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mos_pipeline.store.folder import StoreFolder, disk_errors, fsync_folder, write_private

__all__ = [
    "TABLE",
    "TOKENIZER",
    "copy_model",
    "digest_of",
    "forget_models",
    "model_name",
    "model_of",
    "wrong_with_model",
]

NAME_DIGITS = 32
TABLE = "model.safetensors"  # its weights
TOKENIZER = "tokenizer.json"  # which of them a text is made of
OURS = ("static-*", ".making-*")  # what is kept there, and what was left half made


def model_name(digest: str) -> str:
    """Return the name of the folder for the static model that has that digest."""
    return f"static-{digest[:NAME_DIGITS]}"


def model_of(folder: StoreFolder, identity: Mapping[str, Any] | None) -> Path | None:
    """Return where the store keeps the model of its vectors; None for one that it doesn't keep."""
    if identity is None or identity.get("tier") != "static":
        return None
    return folder.models / model_name(identity["digest"])


def digest_of(model: Path) -> str:
    """Return the SHA-256 of all that a static model's vectors depend on, its weights and its tokenizer, in hex.

    Raises:
        OSError: they are not there, or can't be read.
    """
    digest = hashlib.sha256()
    for name in (TABLE, TOKENIZER):
        with (model / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def wrong_with_model(folder: StoreFolder, identity: Mapping[str, Any] | None) -> str:
    """Return what is wrong with the model that the store keeps of its vectors; empty where nothing is."""
    model = model_of(folder, identity)
    if model is None or identity is None:
        return ""
    try:
        found = digest_of(model)
    except OSError as error:
        return f"the static model of the vectors can't be read ({error.strerror}); restore it from a backup, or reembed"
    same = found == identity["digest"]
    return "" if same else "the static model of the vectors is damaged; restore it from a backup, or reembed"


def forget_models(folder: StoreFolder, identity: Mapping[str, Any] | None) -> None:
    """Delete models that the store has no vectors by any more, and what was left half made; by its owner alone.

    Raises:
        StoreError: the folder can't be read.
    """
    if folder.models.is_symlink() or not folder.models.is_dir():  # nothing of what lies elsewhere is ours to delete
        return
    present = model_of(folder, identity)
    with disk_errors(folder.models, "the models could not be looked at"):
        ours = [path for pattern in OURS for path in folder.models.glob(pattern) if path != present]
    for other in ours:
        shutil.rmtree(other, ignore_errors=True)


def copy_model(source: StoreFolder, copy: StoreFolder, identity: Mapping[str, Any] | None) -> int:
    """Copy the model of the vectors, durably, where the store keeps one; return the bytes copied.

    Raises:
        StoreError: it can't be copied.
    """
    model = model_of(source, identity)
    if model is None or not model.is_dir():
        return 0
    target, copied = copy.models / model.name, 0
    with disk_errors(model, "the static model could not be copied"):
        target.mkdir(mode=0o700, parents=True)
        for path in sorted(path for path in model.rglob("*") if path.is_file()):
            copied += _copy_file(path, target / path.relative_to(model))
        for folder in (*(path for path in target.rglob("*") if path.is_dir()), target, copy.models):
            fsync_folder(folder)
    return copied


def _copy_file(path: Path, target: Path) -> int:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = path.read_bytes()
    write_private(target, data, os.O_EXCL)
    return len(data)
