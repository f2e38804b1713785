"""``mos-pipeline backup``: copy a store while it is in use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import store_option
from mos_pipeline.cli.output import as_bytes, print_json, table
from mos_pipeline.cli.signals import Signals

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "backup",
        parents=[common],
        help="copy a store while it is in use",
        description="Copy a store to a folder, also while another process writes to it. The copy is a store of its own "
        "with every page that was accepted before. One that was broken off is refused by whoever opens it.",
    )
    parser.add_argument("target", metavar="DIR", type=Path, help="the folder of the copy: a new one, or an empty one")
    store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, _signals: Signals) -> ExitCode:
    """Copy the store; print how much that was."""
    from mos_pipeline.config import load_config
    from mos_pipeline.store.backup import backup_store

    load_config(args.config)  # nothing here depends on a setting, but a wrong file is told as everywhere
    copied = backup_store(args.store, args.target)
    if args.json:
        print_json({"backup": str(args.target), "bytes": copied})
    else:
        print(table([("backup", str(args.target)), ("copied", as_bytes(copied))]))
    return ExitCode.OK
