"""Where models that were made from others are kept: optimised ones, and static ones.

A folder for each, named by what it was made from and how. What tells of it is written last, and the folder gets its
name in one step, so one that is there is whole; two processes that make the same one at once keep the first. What a
process that was killed has left half made goes a day later.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mos_pipeline.errors import ModelNotFoundError

__all__ = ["CachedModel", "all_cached", "cache_folder", "find_cached", "make_cached"]

logger = logging.getLogger(__name__)

ABOUT = "about.json"
MAKING = ".making-"
LEFT_S = 86400.0  # a folder that is being made is younger


class CachedModel(NamedTuple):
    """A model in the cache.

    Attributes:
        about: what its maker told of it; plain values.
    """

    folder: Path
    about: dict[str, Any]


def cache_folder(configured: str) -> Path:
    """Return the folder of all of them: the ``configured`` one, else that of the user's caches."""
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mos_pipeline"


def find_cached(cache: Path, name: str) -> CachedModel | None:
    """Return the model of that name; None where there is none.

    Raises:
        ModelNotFoundError: it is there, and damaged.
    """
    folder = cache / name
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise ValueError(f"{ABOUT} holds no object")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{folder}: it can't be read ({error}); delete it, and have it made again") from error
    return CachedModel(folder, about)


def all_cached(cache: Path) -> Iterator[CachedModel]:
    """Yield every model that can be read; one that is damaged is no model."""
    for path in sorted(cache.glob(f"[!.]*/{ABOUT}")):
        try:
            found = find_cached(cache, path.parent.name)
        except ModelNotFoundError as error:
            logger.warning("%s", error)
            continue
        if found is not None:
            yield found


def make_cached(cache: Path, name: str, make: Callable[[Path], dict[str, Any]]) -> CachedModel:
    """Have ``make`` write a model into an empty folder and tell of it; keep both under that name, durably and private.

    Raises:
        ModelNotFoundError: the cache can't be written.
    """
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _delete_left(cache)
        folder = Path(tempfile.mkdtemp(prefix=MAKING, dir=cache))
    except OSError as error:
        raise _unkept(cache, error) from error
    try:
        about = make(folder)
        (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
        _make_durable(folder)
        _rename(folder, cache / name)
        _sync(cache)
    except OSError as error:
        raise _unkept(cache, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = find_cached(cache, name)
    if found is None:
        raise ModelNotFoundError(f"{cache / name}: it was deleted while it was made; make it again")
    return found


def _delete_left(cache: Path) -> None:
    """Delete what processes that were killed have left half made."""
    for path in cache.glob(f"{MAKING}*"):
        with suppress(OSError):  # another process is quicker, or may
            if time.time() - path.stat().st_mtime > LEFT_S:
                shutil.rmtree(path)


def _unkept(cache: Path, error: OSError) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{cache}: no model can be kept there ({error.strerror or error}); free disk space, or set embedding.cache_dir "
        "to a folder that can be written"
    )


def _make_durable(folder: Path) -> None:
    """Have all that lies in ``folder`` on the disk, and be its user's alone."""
    paths = list(folder.rglob("*"))
    for path in paths:
        path.chmod(0o700 if path.is_dir() else 0o600)
    for path in (*paths, folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(folder: Path, kept: Path) -> None:
    """Give ``folder`` its name, unless a whole one has it; what is left of one that was half deleted goes."""
    try:
        folder.rename(kept)
    except OSError:
        if (kept / ABOUT).exists():
            return
        if not kept.is_dir():
            raise
        left = kept.rename(kept.with_name(f"{folder.name}-left"))
        shutil.rmtree(left, ignore_errors=True)
        folder.rename(kept)
