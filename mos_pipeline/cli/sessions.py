"""``mos-pipeline sessions``: the topics of a user's mid-term memory."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.output import clean, counted, labelled, print_json, say
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
    from mos_pipeline.messages import Session

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "sessions",
        parents=[common],
        help="show the topics of a user's memory",
        description="Show the sessions of a user's mid-term memory, hottest first: each is a topic with its pages. ",
    )
    scope_options(parser, "whose sessions")
    part_options(parser, "sessions")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Print the sessions."""
    part = with_stored(args, signals, partial(_read, args))
    if args.json:
        print_json({"sessions": [dataclasses.asdict(one) for one in part.items], "next_offset": part.next_offset})
    else:
        for session in part.items:
            print("\n".join(_lines(session)))
    show_next(part)
    return ExitCode.OK


def _read(args: argparse.Namespace, pipeline: Memory) -> Part[Session]:
    assistant = assistant_of(args)
    part = part_with(
        args, lambda offset, limit: pipeline.sessions(args.user, assistant_id=assistant, offset=offset, limit=limit)
    )
    if not part.items and has_pages(pipeline, args):
        say("note: no session here; pages join one when they leave short-term memory")
    return part


def _lines(session: Session) -> list[str]:
    figures = f"heat {session.heat:.2f}  {counted(session.visits, 'visit')}  {counted(len(session.page_ids), 'page')}"
    return [
        f"{session.session_id:>3}  {figures}  {clean(session.timestamp)}",
        labelled("summary", session.summary),
        labelled("keywords", ", ".join(session.keywords)),
    ]
