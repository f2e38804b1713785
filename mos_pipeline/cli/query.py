"""``mos-pipeline query``: find pages."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, positive_int, positive_seconds, store_option, stored
from mos_pipeline.cli.output import clean, cut, print_json, say, width
from mos_pipeline.cli.signals import Signals

if TYPE_CHECKING:
    from mos_pipeline.messages import Hit, Retrieved
    from mos_pipeline.pipeline import MemoryPipeline

__all__ = ["add_parser", "hit_lines"]

MODEL_LOADS_S = 60.0
LABEL = 10  # cells of "assistant" and a space


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "query",
        parents=[common],
        help="find a user's pages",
        description="Find the pages of a user that tell most about a question, by meaning and by words.",
    )
    parser.add_argument("question", help="what to look for")
    store_option(parser)
    parser.add_argument("--user", metavar="ID", required=True, help="whose pages")
    parser.add_argument("--assistant", metavar="ID", help="the assistant they were said to")
    parser.add_argument("-k", metavar="N", type=positive_int, help="how many pages (setting retrieval.k)")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        default=MODEL_LOADS_S,
        help="seconds to wait for the model to load; then words alone decide (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Print the best pages."""
    from mos_pipeline.pipeline import DEFAULT_ASSISTANT

    stored(args)
    assistant = DEFAULT_ASSISTANT if args.assistant is None else args.assistant
    with opened(args, signals) as pipeline:
        found = pipeline.retrieve(args.user, args.question, assistant_id=assistant, k=args.k, timeout=args.timeout)
        _remark(pipeline, found, args, assistant)
    if args.json:
        print_json(_as_dict(found))
    else:
        for rank, hit in enumerate(found.pages, 1):
            print("\n".join(hit_lines(rank, hit)))
    return ExitCode.OK


def hit_lines(rank: int, hit: Hit, mark: str = "") -> list[str]:
    """Return a found page as three lines cut to the terminal: rank, score, time and id; both sides of the exchange."""
    page, room = hit.page, width() - 5 - LABEL
    return [
        f"{rank:>3}. {hit.score:.3f}  {clean(page.timestamp)}  {clean(page.page_id)}{mark}",
        f"     {'user':<{LABEL}}{cut(page.user_input, room)}",
        f"     {'assistant':<{LABEL}}{cut(page.agent_response, room)}",
    ]


def _remark(pipeline: MemoryPipeline, found: Retrieved, args: argparse.Namespace, assistant: str) -> None:
    """Say on stderr what the answer's reader should know."""
    if found.degraded:
        error = pipeline.stats().workers["embedder"].error
        why = error or f"the model gave no vector within {args.timeout:g} s (--timeout)"
        say(f"note: degraded answer, words alone decided: {why}")
    if not found.short_term:
        known = args.user in pipeline.users()
        hint = "; this user has pages with another: name it with --assistant" if known else ""
        say(f"note: there are no pages of user {args.user!r} with assistant {assistant!r}{hint}")
    elif not found.pages:
        say("note: no page matches")


def _as_dict(found: Retrieved) -> dict[str, Any]:
    return {
        "degraded": found.degraded,
        "pages": [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(found.pages, 1)],
        "short_term": [dataclasses.asdict(page) for page in found.short_term],
    }
