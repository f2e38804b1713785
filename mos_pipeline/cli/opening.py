"""Opening stores for the commands, and the options they share.

A store that nobody has open is opened here; one that another process owns is asked by way of its owner's socket; and
where that one can't be asked, commands that change nothing read what is on the disk. They don't know which it is.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.output import say
from mos_pipeline.cli.signals import Signals, terminal_blocked
from mos_pipeline.errors import ModelMismatchError, StoreError, StoreLockedError

if TYPE_CHECKING:
    from mos_pipeline.metrics import Stats
    from mos_pipeline.pipeline import MemoryPipeline
    from mos_pipeline.service.client import RemoteMemory

    Memory = MemoryPipeline | RemoteMemory

__all__ = [
    "RESTORE_S",
    "common_options",
    "natural_int",
    "opened",
    "opened_to_look",
    "own_model",
    "positive_int",
    "positive_seconds",
    "restored",
    "store_option",
    "stored",
    "tier_of",
    "tier_option",
]

RESTORE_S = 60.0


def common_options() -> argparse.ArgumentParser:
    """Return the options of every command, as a parent for its parser."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--config", metavar="FILE", help="a YAML file with settings; see config.yaml for all of them")
    options.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_argument("--verbose", action="store_true", help="log on stderr; tracebacks for errors")
    return options


def store_option(parser: argparse.ArgumentParser, meaning: str = "the store's folder") -> None:
    """Add ``--store``."""
    parser.add_argument("--store", metavar="DIR", type=Path, required=True, help=meaning)


def tier_option(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``--tier``."""
    parser.add_argument("--tier", choices=("full", "static"), help=f"{meaning} (default: embedding.tier)")


def tier_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the setting that ``--tier`` names, where it was given."""
    return {} if args.tier is None else {"embedding__tier": args.tier}


def natural_int(text: str) -> int:
    """Read an option's value as a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def positive_int(text: str) -> int:
    """Read an option's value as a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def positive_seconds(text: str) -> float:
    """Read an option's value as a number of seconds that is finite and not negative."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(text)
    return value


natural_int.__name__ = "whole number of at least 0"  # argparse names the type so in its message
positive_int.__name__ = "whole number of at least 1"
positive_seconds.__name__ = "number of seconds"


@contextmanager
def opened(args: argparse.Namespace, signals: Signals, *, looks: bool = False, **options: Any) -> Iterator[Memory]:
    """Open the store that ``args`` names, and close it however the block ends; or ask its owner, where it has one.

    What is asked of an owner is done with the owner's settings, its model among them; ``options`` are not for it.

    Args:
        args: the command's.
        signals: what to hold while it is closed.
        looks: whether the command changes nothing, so that a reader will do where the owner can't be asked.
        options: for ``MemoryPipeline.open``.

    Raises:
        MosError: as from ``MemoryPipeline.open``; or from ``RemoteMemory``, where the owner can't be asked.
    """
    memory = None
    try:
        with terminal_blocked():
            memory = _memory(args, options, looks=looks)
        yield memory
    finally:
        if memory is not None:
            with signals.held():
                memory.close()


def _memory(args: argparse.Namespace, options: dict[str, Any], *, looks: bool) -> Memory:
    from mos_pipeline.pipeline import MemoryPipeline

    try:
        return MemoryPipeline.open(args.store, config=args.config, **options)
    except StoreLockedError as locked:
        try:
            return _owner_of(args, locked)
        except StoreError:
            if not looks:
                raise
            owner = "another process" if locked.pid is None else f"process {locked.pid}"
            say(f"note: {owner} has this store open and can't be asked; this is what is on the disk")
        return MemoryPipeline.open(args.store, config=args.config, read_only=True, **options)


def _owner_of(args: argparse.Namespace, locked: StoreLockedError) -> RemoteMemory:
    from mos_pipeline.service.client import RemoteMemory

    remote = RemoteMemory(args.store) if locked.pid is not None else None
    if remote is None or remote.owner is None:  # an orphaned writer, which answers nobody
        raise locked
    return remote


@contextmanager
def opened_to_look(args: argparse.Namespace) -> Iterator[MemoryPipeline | None]:
    """Open the store that ``args`` names for reading alone, whoever owns it; None where there is none.

    Raises:
        MosError: as from ``MemoryPipeline.open``; or what is there is the rest of a store.
    """
    from mos_pipeline.pipeline import MemoryPipeline
    from mos_pipeline.store.folder import StoreFolder

    if not StoreFolder(args.store).has_manifest():
        yield None
        return
    with MemoryPipeline.open(args.store, config=args.config, read_only=True, workers=False) as memory:
        yield memory


def restored(pipeline: Memory) -> Stats:
    """Return the figures once everything stored has been read; after a minute as far as it has."""
    deadline = time.monotonic() + RESTORE_S
    while not (stats := pipeline.stats()).restored and time.monotonic() < deadline:
        time.sleep(0.02)
    return stats


def stored(args: argparse.Namespace) -> dict[str, Any]:
    """Check that there is a store, and return the settings that name its own model.

    For commands that compute no vectors: what model is configured is nothing to them.

    Raises:
        StoreError: there is none; nothing is made.
    """
    from mos_pipeline.store.folder import StoreFolder

    folder = StoreFolder(args.store)
    if not folder.manifest.exists():
        raise StoreError(f"{args.store}: there is no store here (no MANIFEST); check the path, or ingest into it first")
    return own_model(args)


def own_model(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that name the store's own model.

    None where there is no store, no vector in it yet, or the configured model is the store's as far as can be told.
    """
    from mos_pipeline.config import load_config
    from mos_pipeline.stages.identity import check_configured, settings_of
    from mos_pipeline.store.folder import StoreFolder
    from mos_pipeline.store.manifest import Manifest

    folder = StoreFolder(args.store)
    identity = Manifest.load(folder).embedding if folder.manifest.exists() else None
    if identity is None:
        return {}
    with suppress(ModelMismatchError):
        check_configured(folder.root, identity, load_config(args.config).embedding)
        return {}
    return settings_of(identity)
