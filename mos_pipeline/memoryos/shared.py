"""One pipeline for each folder in this process, shared by all who use it, and closed when the last one lets go."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mos_pipeline.config import Config, load_config
from mos_pipeline.errors import ConfigError, StoreError, StoreLockedError
from mos_pipeline.pipeline import MemoryPipeline
from mos_pipeline.store.folder import StoreFolder

__all__ = ["Lease", "borrow"]

ORIGINALS = ("users", "assistants")  # folders of a data folder of the original's


@dataclass(slots=True, eq=False)
class _Shared:
    pipeline: MemoryPipeline
    config: Config
    users: int = 0


_lock = threading.Lock()
_open: dict[Path, _Shared] = {}


class Lease:
    """A share in a folder's pipeline; ``give_back`` ends it, once."""

    def __init__(self, path: Path, shared: _Shared) -> None:
        self.pipeline = shared.pipeline
        self.config = shared.config
        self._path = path
        self._shared = shared
        self._pid = os.getpid()
        self._ended = False

    def give_back(self) -> None:
        """Let go of the pipeline; the last one closes it."""
        if os.getpid() != self._pid:  # a forked child has no share, and no thread that could close it
            return
        with _lock:
            if self._ended:
                return
            self._ended = True
            self._shared.users -= 1
            if self._shared.users == 0:
                if _open.get(self._path) is self._shared:
                    del _open[self._path]
                # Under the lock: whoever opens the folder next must find it free.
                self._shared.pipeline.close()


def borrow(path: Path, defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> tuple[Lease, bool]:
    """Return a share in the pipeline of the folder ``path``, opened if need be, and whether it was opened now.

    Args:
        path: absolute.
        defaults: settings below those of the environment.
        chosen: settings above them.

    Raises:
        ConfigError: a setting is wrong, or the folder is open in this process with other settings.
        StoreLockedError: another process owns the folder.
        StoreError: the folder is one of the original's, or can't be used.
    """
    config = load_config(defaults, overrides=chosen)
    place = path.resolve()
    with _lock:
        shared = _open.get(place)
        new = shared is None or shared.pipeline.closed  # by somebody who called its close()
        if shared is None or new:
            _refuse_originals(path)
            shared = _open[place] = _Shared(_opened(path, defaults, chosen), config)
        elif shared.config != config:
            different = ", ".join(_different(shared.config, config))
            raise ConfigError(
                f"{path}: is open in this process with other settings ({different} differ), and all objects of one "
                "folder share them; use the same ones, or close the others first"
            )
        shared.users += 1
        return Lease(place, shared), new


def _opened(path: Path, defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> MemoryPipeline:
    try:
        return MemoryPipeline.open(path, config=defaults, **chosen)
    except StoreLockedError as error:
        raise StoreLockedError(
            f"{error}; one process at a time writes to a folder: have that one answer for the others, or "
            "only read here, by MemoryPipeline.open(path, read_only=True)",
            error.pid,
        ) from None


def _refuse_originals(path: Path) -> None:
    if not StoreFolder(path).manifest.exists() and any((path / name).is_dir() for name in ORIGINALS):
        raise StoreError(
            f"{path}: this is a data folder of the original MemoryOS; take it over with `mos-pipeline migrate {path} "
            "--store NEW`, and name NEW as data_storage_path"
        )


def _different(one: Config, other: Config) -> list[str]:
    """Return the names of the settings that differ, without their values, which may be secret."""
    return [
        f"{section.name}.{setting.name}"
        for section in fields(Config)
        for setting in fields(getattr(one, section.name))
        if getattr(getattr(one, section.name), setting.name) != getattr(getattr(other, section.name), setting.name)
    ]


def _after_fork() -> None:
    """Forget what is the parent's: a child opens its own, and would else wait for a lock that nobody lets go."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
