"""``mos-pipeline query``: find what a user's memory tells about a question."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, positive_int, positive_seconds, stored
from mos_pipeline.cli.output import clean, indented, labelled, print_json, say
from mos_pipeline.cli.scope import assistant_of, has_pages, scope_options
from mos_pipeline.cli.signals import Signals
from mos_pipeline.errors import InputError

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.messages import Hit, KnowledgeHit, Parts, Retrieved

__all__ = ["add_parser", "hit_lines", "known_lines", "profile_lines"]

MODEL_LOADS_S = 60.0
PROFILE_LINES = 6


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "query",
        parents=[common],
        help="find what a user's memory tells about a question",
        description="Find the pages of a user that tell most about a question, by meaning and by words, and after them "
        "the user's profile, the facts nearest to the question, and the overviews of the pages' chains.",
    )
    parser.add_argument("question", help="what to look for")
    scope_options(parser, "whose memory")
    parser.add_argument("-k", metavar="N", type=positive_int, help="how many pages (setting retrieval.k)")
    _narrowing_options(parser)
    _showing_options(parser)
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        default=MODEL_LOADS_S,
        help="seconds to wait for the model to load; then words alone decide (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def _narrowing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help="only pages from then on: 2026-03-01, or 2026-03-01T10:00+02")
    parser.add_argument("--until", metavar="TIME", help="only pages up to then; a day is its first moment, in UTC")
    parser.add_argument(
        "--where",
        metavar="KEY=VALUE",
        type=metadata_item,
        action="append",
        help="only pages whose metadata hold this; VALUE is read as JSON where it is JSON, else as text; may be "
        "repeated, and then all must hold",
    )
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=positive_int,
        help="about how many tokens pages and overviews may take together; best first, as many pages as that holds "
        "where -k is not given",
    )


def _showing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--order",
        choices=("score", "time"),
        default="score",
        help="best page first, or in the order of acceptance (default: %(default)s)",
    )
    parser.add_argument("--explain", action="store_true", help="show what each page's score is made of")
    parser.add_argument("--pages-only", action="store_true", help="leave out profile, facts and overviews")


def metadata_item(text: str) -> tuple[str, Any]:
    """Read an option's value as a key of the metadata and its value."""
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise ValueError(text)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


metadata_item.__name__ = "KEY=VALUE"  # argparse names the type so in its message


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Print the best pages, and what else is known."""
    where = _where(args.where)
    stored(args)
    with opened(args, signals, looks=True) as pipeline:
        found = pipeline.retrieve(
            args.user,
            args.question,
            assistant_id=assistant_of(args),
            k=args.k,
            since=args.since,
            until=args.until,
            where=where,
            max_tokens=args.max_tokens,
            order=args.order,
            explain=args.explain,
            timeout=args.timeout,
        )
        _remark(pipeline, found, args)
    if args.json:
        print_json(_as_dict(found, pages_only=args.pages_only))
    else:
        for line in _lines(found, pages_only=args.pages_only):
            print(line)
    return ExitCode.OK


def _where(items: Sequence[tuple[str, Any]] | None) -> dict[str, Any] | None:
    if items is None:
        return None
    where = dict(items)
    if len(where) < len(items):
        raise InputError("--where names a key twice, and no page can have two values of one; name each once")
    return where


def _lines(found: Retrieved, *, pages_only: bool) -> Iterator[str]:
    for rank, hit in zip(_ranks(found.pages), found.pages, strict=True):
        yield from hit_lines(rank, hit)
    if not pages_only:
        yield from known_lines(found)


def _ranks(hits: Sequence[Hit]) -> list[int]:
    """Return each page's place by score, from 1, in whatever order they are shown."""
    best_first = sorted(range(len(hits)), key=lambda at: -hits[at].score)
    ranks = {at: rank for rank, at in enumerate(best_first, 1)}
    return [ranks[at] for at in range(len(hits))]


def hit_lines(rank: int, hit: Hit, mark: str = "") -> list[str]:
    """Return a found page as lines cut to the terminal: rank, score, time and id; both sides; the score's parts."""
    page = hit.page
    lines = [
        f"{rank:>3}. {hit.score:.3f}  {clean(page.timestamp)}  {clean(page.page_id)}{mark}",
        labelled("user", page.user_input),
        labelled("assistant", page.agent_response),
    ]
    if hit.parts is not None:
        lines.append(labelled("score", _parts(hit.parts)))
    return lines


def _parts(parts: Parts) -> str:
    dense = "no vector" if parts.dense is None else f"dense {parts.dense:.3f}"
    words = f"words {parts.words:.2f}, window {parts.window:.2f}, sitting {parts.sitting:.2f}"
    return f"{dense}, {words} of {parts.limit:.2f}"


def known_lines(found: Retrieved) -> list[str]:
    """Return what was found besides pages, each kind under its heading, cut to the terminal; nothing of what is not."""
    return [
        *_under("profile", profile_lines(found.profile)),
        *_under("about the user", map(_fact_line, found.user_knowledge)),
        *_under("about the assistant", map(_fact_line, found.assistant_knowledge)),
        *_under("overviews of the pages' chains", (f"- {text}" for text in found.overviews)),
    ]


def profile_lines(text: str) -> list[str]:
    """Return the first lines of a profile, and how many are left out."""
    lines = [line for line in text.splitlines() if line.strip()]
    more = len(lines) - PROFILE_LINES
    return [*lines[:PROFILE_LINES], f"… and {more} more (mos-pipeline profile)"] if more > 1 else lines


def _fact_line(hit: KnowledgeHit) -> str:
    return f"{hit.score:.3f}  {hit.fact.timestamp}  {hit.fact.text}"


def _under(heading: str, lines: Iterator[str] | Sequence[str]) -> list[str]:
    shown = [indented(line) for line in lines]
    return [heading, *shown] if shown else []


def _remark(pipeline: Memory, found: Retrieved, args: argparse.Namespace) -> None:
    """Say on stderr what the answer's reader should know."""
    if found.degraded:
        embedder = pipeline.stats().workers.get("embedder")  # none where the owner has no workers
        error = None if embedder is None else embedder.error
        why = error or f"the model gave no vector within {args.timeout:g} s (--timeout)"
        say(f"note: degraded answer, words alone decided: {why}")
    if not found.pages and has_pages(pipeline, args):
        say("note: no page matches")


def _as_dict(found: Retrieved, *, pages_only: bool) -> dict[str, Any]:
    answer = dataclasses.asdict(found)
    answer["pages"] = [{"rank": rank, **hit} for rank, hit in zip(_ranks(found.pages), answer["pages"], strict=True)]
    return {name: answer[name] for name in ("degraded", "pages", "short_term")} if pages_only else answer
