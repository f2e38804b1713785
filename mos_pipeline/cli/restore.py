"""``mos-pipeline restore``: make a store from a backup."""

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
        "restore",
        parents=[common],
        help="make a store from a backup",
        description="Check a backup and copy it to where a store is to be. The backup stays as it is.",
    )
    parser.add_argument("backup", metavar="BACKUP", type=Path, help="the backup's folder")
    store_option(parser, "the store's folder: a new one, or an empty one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, _signals: Signals) -> ExitCode:
    """Copy the backup; print how much that was."""
    from mos_pipeline.config import load_config
    from mos_pipeline.store.backup import restore_store

    load_config(args.config)  # nothing here depends on a setting, but a wrong file is told as everywhere
    copied = restore_store(args.backup, args.store)
    if args.json:
        print_json({"store": str(args.store), "bytes": copied})
    else:
        print(table([("store", str(args.store)), ("copied", as_bytes(copied))]))
    return ExitCode.OK
