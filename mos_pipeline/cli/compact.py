"""``mos-pipeline compact``: write the segments again without what was forgotten."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, positive_seconds, restored, store_option, stored
from mos_pipeline.cli.output import as_bytes, print_json, table
from mos_pipeline.cli.signals import Signals

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "compact",
        parents=[common],
        help="free the room of what was forgotten",
        description="Write the segments again without what was forgotten, and wait for it. It happens by itself, too, "
        "once store.max_dead_ratio of the store is forgotten.",
    )
    store_option(parser)
    parser.add_argument(
        "--timeout", metavar="S", type=positive_seconds, help="seconds to wait (default: for as long as it takes)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Compact, and print what that has changed."""
    with opened(args, signals, **stored(args)) as pipeline:
        restored(pipeline)
        result = pipeline.compact(args.timeout)
    if args.json:
        print_json(dataclasses.asdict(result))
    else:
        print(table([("segments", f"{as_bytes(result.after)}, before {as_bytes(result.before)}")]))
    return ExitCode.OK
