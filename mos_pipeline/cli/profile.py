"""``mos-pipeline profile``: what is known of a user as a person."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.output import clean, print_json, say
from mos_pipeline.cli.scope import assistant_of, has_pages, scope_options, with_stored
from mos_pipeline.cli.signals import Signals

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.messages import Profile

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "profile",
        parents=[common],
        help="show what is known of a user as a person",
        description="Show the profile of a user.",
    )
    scope_options(parser, "whose profile")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Print the profile."""
    profile = with_stored(args, signals, partial(_read, args))
    if args.json:
        print_json(dataclasses.asdict(profile))
    elif profile.text:
        print("\n".join(map(clean, profile.text.splitlines())))
        say(f"note: written {clean(profile.updated)}")
    return ExitCode.OK


def _read(args: argparse.Namespace, pipeline: Memory) -> Profile:
    profile = pipeline.profile(args.user, assistant_id=assistant_of(args))
    if not profile.text and has_pages(pipeline, args):
        say("note: there is no profile yet; it is made from sessions that are hot enough (mid_term.heat_threshold)")
    return profile
