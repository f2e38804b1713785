"""Models in the form that another runtime wants: exported, and quantised; how they are named and found in the cache.

An exported model (fp32) has the weights of the one that it was made from, and is made again where a library changes.
A quantised one (int8) has weights of its own, so a store is bound to it: one that is there is used whatever versions
made it. Nothing here imports a runtime.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mos_pipeline.config import Embedding
from mos_pipeline.errors import ModelNotFoundError, WorkerError
from mos_pipeline.stages.model_cache import CachedModel, all_cached, cache_folder, find_cached, make_cached
from mos_pipeline.stages.models import ModelFiles

__all__ = [
    "EXPORTED",
    "cache_of",
    "entry_name",
    "exported",
    "find_exported",
    "graph_digest",
    "origin",
    "quantised",
    "versions",
]

LIBRARIES = {
    "openvino": ("openvino", "optimum-intel", "sentence-transformers", "transformers"),
    "onnx": ("onnxruntime", "optimum-onnx", "sentence-transformers", "transformers"),
}
EXPORTED = tuple(LIBRARIES)  # backends that compute a form of their own
SHAPING = ("model_kwargs", "config_kwargs")  # arguments of the model's constructor that change what is exported
GRAPHS = ("*.xml", "*.bin", "*.onnx", "*.onnx_data")
FORM = 1  # of what an entry tells: one of another form is another entry
SHORT = 12


def cache_of(settings: Embedding) -> Path:
    """Return the folder of the models that were made from others."""
    return cache_folder(settings.cache_dir)


def versions(backend: str, *more: str) -> dict[str, str]:
    """Return the versions of the libraries that ``backend`` needs, and of ``more``, by name; none is imported.

    Raises:
        WorkerError: one of them is not installed; it says how to install it.
    """
    found, missing = dict[str, str](), list[str]()
    for name in (*LIBRARIES[backend], *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise WorkerError(
            f"embedding.backend {backend} needs {' and '.join(missing)}, not installed here: "
            f"pip install 'mos-pipeline[{backend}]', or set embedding.backend to torch"
        )
    return found


def origin(settings: Embedding, files: ModelFiles, precision: str) -> dict[str, Any]:
    """Return what a variant was made from and for, as it tells itself: entries that differ in it are others."""
    shaping = {name: settings.model_kwargs[name] for name in SHAPING if settings.model_kwargs.get(name)}
    return {
        "model": files.name,
        "source": files.digest,
        "backend": settings.backend,
        "precision": precision,
        "arguments": shaping,
    }


def entry_name(made_from: Mapping[str, Any], made_by: Mapping[str, str], texts: str = "") -> str:
    """Return the name of a variant's folder.

    Args:
        made_from: from ``origin``.
        made_by: versions of the libraries, by name.
        texts: digest of the texts that a quantised one was calibrated on.
    """
    called = re.sub(r"[^A-Za-z0-9.-]+", "-", str(made_from["model"]).rpartition("/")[2]).strip(".-") or "model"
    how = json.dumps([FORM, made_from["arguments"], dict(made_by), texts], sort_keys=True)
    told = hashlib.sha256(how.encode()).hexdigest()[:SHORT]
    return f"{called}-{made_from['source'][:SHORT]}-{made_from['backend']}-{made_from['precision']}-{told}"


def find_exported(settings: Embedding, files: ModelFiles) -> CachedModel | None:
    """Return the exported form of a model that these versions of the libraries make; None where there is none yet.

    Args:
        settings: name the backend, and the cache.
        files: of the model itself.

    Raises:
        WorkerError: a library is missing.
        ModelNotFoundError: it is there, and damaged.
    """
    made_by = versions(settings.backend)
    return find_cached(cache_of(settings), entry_name(origin(settings, files, "fp32"), made_by))


def exported(settings: Embedding, files: ModelFiles, make: Callable[[Path], dict[str, Any]]) -> CachedModel:
    """Return the exported form of a model; ``make`` writes it into a folder and tells of it, where there is none yet.

    Raises:
        WorkerError: a library is missing.
        ModelNotFoundError: the cache can't be read or written.
    """
    found = find_exported(settings, files)
    if found is not None:
        return found
    made_from, made_by = origin(settings, files, "fp32"), versions(settings.backend)
    told = {**made_from, "digest": files.digest, "versions": made_by}
    name = entry_name(made_from, made_by)
    return make_cached(cache_of(settings), name, lambda folder: {**told, **make(folder)})


def quantised(settings: Embedding, files: ModelFiles, digest: str = "") -> CachedModel:
    """Return the quantised form of a model: that of ``digest`` where there is one, else the one made last.

    Raises:
        ModelNotFoundError: there is none; it names the command that makes one.
    """
    wanted = origin(settings, files, "int8")
    found = [each for each in all_cached(cache_of(settings)) if wanted.items() <= each.about.items()]
    if not found:
        raise ModelNotFoundError(
            f"{cache_of(settings)}: no int8 form of {files.name} (weights {files.digest[:SHORT]}…) for "
            f"{settings.backend} there; make it once: mos-pipeline optimize-model --backend {settings.backend}; or set "
            "embedding.precision to fp32, or embedding.cache_dir to where it is"
        )
    return next((each for each in found if each.about["digest"] == digest), None) or max(found, key=_made)


def _made(entry: CachedModel) -> float:
    return float(entry.about["made"])


def graph_digest(folder: Path) -> str:
    """Return the SHA-256, in hex, of a variant's files of weights and graph, in the order of their names."""
    digest = hashlib.sha256()
    for path in _graphs(folder):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _graphs(folder: Path) -> Iterable[Path]:
    return sorted(path for pattern in GRAPHS for path in folder.rglob(pattern))
