"""``mos-pipeline retry``: have pages worked on again that were set aside."""

from __future__ import annotations

import argparse
from typing import Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, restored, store_option, stored
from mos_pipeline.cli.output import clean, counted, print_json, table
from mos_pipeline.cli.signals import Signals

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "retry",
        parents=[common],
        help="work again on pages that were set aside",
        description="Give out again the pages that no worker could work on, and wait until everything is worked off. "
        "What still can't be worked on is set aside again.",
    )
    store_option(parser)
    parser.add_argument("--no-wait", action="store_true", help="don't wait; the owner of the store goes on with it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Give the pages out again, and print what came of it."""
    with opened(args, signals, **stored(args)) as pipeline:
        restored(pipeline)
        count = pipeline.retry()
        if count and not args.no_wait:
            pipeline.wait_idle()
        left = pipeline.stats().set_aside
    if args.json:
        print_json({"given_out_again": count, "set_aside": left})
    else:
        rows = [("given out again", counted(count, "page")), ("set aside", counted(len(left), "page"))]
        print(table(rows + [(f"  {clean(page_id)}", clean(reason)) for page_id, reason in left.items()]))
    return ExitCode.OK
