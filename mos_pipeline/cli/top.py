"""``mos-pipeline top``: watch a running pipeline, by way of its owner's socket."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import positive_int, store_option
from mos_pipeline.cli.output import json_ready
from mos_pipeline.cli.panel import panel
from mos_pipeline.cli.rates import Rates
from mos_pipeline.cli.screen import Screen
from mos_pipeline.cli.signals import Signals
from mos_pipeline.errors import ClosedError, StoreError

if TYPE_CHECKING:
    from mos_pipeline.metrics import Stats
    from mos_pipeline.service.client import RemoteMemory

__all__ = ["add_parser"]

LEAST_INTERVAL_S = 0.1
INTERVAL_S = 1.0

Show = Callable[["Stats", "dict[str, float] | None"], None]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "top",
        parents=[common],
        help="watch a running pipeline",
        description="Watch a running pipeline: its stages, what waits for each, how fast they work, memory, calls to a "
        "language model. The process that has the store open is asked. On a terminal the figures are drawn in place; "
        "elsewhere, and with --json, each snapshot is one line of JSON. Ctrl-C ends it.",
    )
    store_option(parser)
    parser.add_argument("--interval", metavar="S", type=_interval, default=INTERVAL_S, help="seconds between snapshots")
    parser.add_argument("--count", metavar="N", type=positive_int, help="end after so many snapshots")
    parser.set_defaults(run=run)


def _interval(text: str) -> float:
    value = float(text)
    if not LEAST_INTERVAL_S <= value < float("inf"):
        raise ValueError(text)
    return value


_interval.__name__ = f"number of seconds of at least {LEAST_INTERVAL_S}"  # argparse names the type so in its message


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Show the owner's figures until the count is reached, a signal comes or the owner ends."""
    from mos_pipeline.config import load_config

    load_config(args.config)  # nothing here depends on a setting, but a wrong file is told as everywhere
    with contextlib.ExitStack() as stack:
        memory = stack.enter_context(_owner(args))
        first = memory.stats()  # before the screen changes: what is wrong from the beginning is told here
        show: Show = _print
        if sys.stdout.isatty() and not args.json:
            screen = stack.enter_context(Screen(sys.stdout))
            show = lambda stats, rates: screen.draw(panel(stats, rates, _heading(args, memory)))  # noqa: E731
        _watch(args, signals, memory, first, show)
    return ExitCode.OK


def _owner(args: argparse.Namespace) -> RemoteMemory:
    from mos_pipeline.service.client import RemoteMemory
    from mos_pipeline.store.folder import StoreFolder
    from mos_pipeline.store.lock import live_owner

    folder = StoreFolder(args.store)
    if not folder.manifest.exists():
        raise StoreError(f"{args.store}: there is no store here (no MANIFEST); check the path")
    if live_owner(folder.lock) is None:
        raise StoreError(
            f"{args.store}: no process has this store open, so there is nothing to watch; open it in a program, or "
            f"ingest into it. What it holds is shown by: mos-pipeline stats --store {args.store}"
        )
    return RemoteMemory(args.store)


def _watch(args: argparse.Namespace, signals: Signals, memory: RemoteMemory, stats: Stats, show: Show) -> None:
    rates, shown = Rates(), 0
    while True:
        show(stats, rates(stats, time.monotonic()))
        shown += 1
        if shown == args.count:
            return
        signals.wait(args.interval)
        try:
            stats = memory.stats()
        except (StoreError, ClosedError) as error:
            raise StoreError(
                f"{args.store}: process {memory.owner} has closed the store, or ended: there is nothing to watch any "
                "more"
            ) from error


def _heading(args: argparse.Namespace, memory: RemoteMemory) -> str:
    return f"{time.strftime('%H:%M:%S')}  process {memory.owner}, every {args.interval:g} s: {args.store}"


def _print(stats: Stats, rates: dict[str, float] | None) -> None:
    """Print a snapshot as one line of JSON, in ASCII, at once."""
    told = {"time": round(time.time(), 3), "rates": rates, **stats.as_dict()}
    print(json.dumps(json_ready(told)), flush=True)
