"""``mos-pipeline repay``: ask the model again for what it owes."""

from __future__ import annotations

import argparse
from typing import Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, positive_seconds, restored, store_option, stored
from mos_pipeline.cli.output import counted, print_json, table
from mos_pipeline.cli.signals import Signals

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "repay",
        parents=[common],
        help="ask the model again for what it owes",
        description="Ask the model again for tasks that it could not answer, so that the extractive answer stands in, "
        "and put its answers in the place of those. The owner of a store does so by itself now and then.",
    )
    store_option(parser)
    parser.add_argument("--user", metavar="ID", help="only of this user's pages")
    parser.add_argument("--assistant", metavar="ID", help="only with this assistant")
    parser.add_argument("--timeout", metavar="SECONDS", type=positive_seconds, help="wait no longer than that")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Have it asked for, and print what came of it."""
    with opened(args, signals, **stored(args)) as pipeline:
        restored(pipeline)
        result = pipeline.repay(args.user, assistant_id=args.assistant, timeout=args.timeout)
        owed = pipeline.stats().owed
    if args.json:
        print_json({"repaid": result.repaid, "owed": result.owed, "owed_pages": owed})
    else:
        rows = [("repaid", counted(result.repaid, "answer")), ("still owed", counted(result.owed, "answer"))]
        print(table(rows + [(f"  {task}", f"of {counted(pages, 'page')}") for task, pages in owed.items()]))
    return ExitCode.OK
