"""``mos-pipeline respond``: answer a question from memory."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from mos_pipeline.cli.add import json_object
from mos_pipeline.cli.answering import answered, answering_options
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened
from mos_pipeline.cli.output import clean_lines, print_json, say
from mos_pipeline.cli.signals import Signals

__all__ = ["add_parser"]

DESCRIPTION = """Answer a question from what a user's memory tells, print the answer and add the exchange to memory.
With llm.provider extractive, the default, no model writes answers: the pages nearest to the question are quoted. The
store is made if need be."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "respond", parents=[common], help="answer a question from a user's memory", description=DESCRIPTION
    )
    parser.add_argument("question", help="what the user says")
    answering_options(parser)
    parser.add_argument(
        "--metadata", metavar="JSON", type=json_object, help="a JSON object that the model sees, kept with the exchange"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Print the answer."""

    def write(piece: str) -> None:
        if not args.json:
            print(clean_lines(piece), end="", flush=True)

    with opened(args, signals) as memory:
        response = answered(memory, args, signals, args.question, write, args.metadata)
    if args.json:
        print_json(dataclasses.asdict(response))
    else:
        print()
        if response.retrieved.degraded:
            say("note: pages were found by words alone: the embedding model gave no vector in time (--timeout)")
    return ExitCode.OK
