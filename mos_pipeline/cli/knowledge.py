"""``mos-pipeline knowledge``: facts about a user, or about the assistant."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.output import clean, print_json, say, table
from mos_pipeline.cli.scope import (
    Part,
    assistant_of,
    has_pages,
    part_options,
    part_with,
    scope_options,
    show_next,
    with_stored,
)
from mos_pipeline.cli.signals import Signals

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.messages import Knowledge

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "knowledge",
        parents=[common],
        help="show the facts known of a user",
        description="Show facts, the newest last, with the time they were last stated.",
    )
    scope_options(parser, "to whose memory the facts belong")
    parser.add_argument(
        "--about",
        choices=("user", "assistant"),
        default="user",
        help="facts about the user, or what the assistant said of itself to this user (default: %(default)s)",
    )
    part_options(parser, "facts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Print the facts."""
    part = with_stored(args, signals, partial(_read, args))
    if args.json:
        facts = [dataclasses.asdict(fact) for fact in part.items]
        print_json({"about": args.about, "knowledge": facts, "next_offset": part.next_offset})
    elif part.items:
        print(table([(clean(fact.timestamp), clean(fact.text)) for fact in part.items]))
    show_next(part)
    return ExitCode.OK


def _read(args: argparse.Namespace, pipeline: Memory) -> Part[Knowledge]:
    assistant = assistant_of(args)
    part = part_with(
        args,
        lambda offset, limit: pipeline.knowledge(
            args.user, assistant_id=assistant, about=args.about, offset=offset, limit=limit
        ),
    )
    if not part.items and has_pages(pipeline, args):
        say(f"note: no fact about the {args.about} here")
    return part
