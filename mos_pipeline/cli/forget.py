"""``mos-pipeline forget``: forget a page, a session, a user."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import natural_int, opened, restored, store_option, stored
from mos_pipeline.cli.output import as_bytes, clean, counted, print_json, say, table
from mos_pipeline.cli.scope import all_pages, assistant_of, has_pages
from mos_pipeline.cli.signals import Interrupted, Signals
from mos_pipeline.errors import InputError, MosError

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.messages import Compacted

__all__ = ["add_parser"]

DESCRIPTION = """Forget pages for good, with everything that was derived from them. They are not found any more, and
stay forgotten. Their bytes leave the disk with the next compaction, which comes by itself when enough is forgotten;
--compact does it at once, after the work that is still open, for which the model is loaded. Nothing that matches is no
error."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "forget", parents=[common], help="forget a page, a session or a user", description=DESCRIPTION
    )
    store_option(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--page", metavar="ID", help="this page")
    which.add_argument("--user", metavar="ID", help="every page of this user")
    parser.add_argument(
        "--assistant", metavar="ID", help="of the user's pages only those with this assistant (default: with all)"
    )
    parser.add_argument(
        "--session",
        metavar="N",
        type=natural_int,
        help="of the user's pages only those of this session, see the command sessions; with the default assistant "
        "where none is named",
    )
    parser.add_argument("--compact", action="store_true", help="wait until the bytes are gone from the disk, too")
    parser.add_argument("--yes", action="store_true", help="don't ask; needed where there is no terminal to ask on")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Forget the pages, have their bytes removed where that is wanted, and print how many there were."""
    _check(args)
    with opened(args, signals, workers=args.compact, **stored(args)) as pipeline:
        restored(pipeline)
        count = _forget(pipeline, args, signals)
        result = _compact(pipeline, signals, count) if args.compact and count is not None else None
    if args.json:
        compaction = None if result is None else dataclasses.asdict(result)
        print_json({"forgotten": count or 0, "compaction": compaction})
    else:
        print(table(_rows(count or 0, result)))
    signals.check()
    return ExitCode.OK


def _check(args: argparse.Namespace) -> None:
    if args.page is not None and (args.assistant is not None or args.session is not None):
        raise InputError("--page names the page alone; leave out --assistant and --session")
    if not args.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError("forget can't ask whether you are sure, as there is no terminal; add --yes")


def _forget(pipeline: Memory, args: argparse.Namespace, signals: Signals) -> int | None:
    """Return how many pages were forgotten; None where the answer was no."""
    if not args.yes:
        count = _count(pipeline, args)
        if count and not _confirmed(f"forget {counted(count, 'page')}{_whose(args)}? [y/N] "):
            say("note: nothing was forgotten")
            return None
    with signals.held():  # either all of them are forgotten or none
        forgotten = pipeline.forget(args.user, assistant_id=args.assistant, session_id=args.session, page_id=args.page)
    if not forgotten and (args.session is None or has_pages(pipeline, args)):
        say(f"note: there is no page{_whose(args)}")
    return forgotten


def _count(pipeline: Memory, args: argparse.Namespace) -> int:
    if args.page is not None:
        return int(pipeline.get(args.page) is not None)
    if args.session is not None:
        sessions = pipeline.sessions(args.user, assistant_id=assistant_of(args), limit=sys.maxsize)
        return sum(len(session.page_ids) for session in sessions if session.session_id == args.session)
    return sum(
        page.user_id == args.user and args.assistant in {None, page.assistant_id} for page in all_pages(pipeline)
    )


def _confirmed(question: str) -> bool:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _whose(args: argparse.Namespace) -> str:
    """Return what was named, as it follows the pages' number."""
    if args.page is not None:
        return f" {clean(repr(args.page))}"
    session = "" if args.session is None else f" of session {args.session}"
    assistant = args.assistant if args.session is None else assistant_of(args)
    told_to = "" if assistant is None else f" with assistant {assistant!r}"
    return f"{session} of user {args.user!r}{told_to}"


def _compact(pipeline: Memory, signals: Signals, count: int) -> Compacted:
    """Have the derived texts made again without what was forgotten, and then the segments."""
    try:
        signals.check()
        pipeline.wait_idle()
        return pipeline.compact()
    except (Interrupted, MosError):
        if count:
            say(f"note: {counted(count, 'page')} forgotten; the bytes are on the disk until the next compaction")
        raise


def _rows(count: int, result: Compacted | None) -> list[tuple[str, str]]:
    rows = [("forgotten", counted(count, "page"))]
    if result is not None:
        rows.append(("segments", f"{as_bytes(result.after)}, before {as_bytes(result.before)}"))
    return rows
