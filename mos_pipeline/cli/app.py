"""The command line's parser, and its outermost edge: errors become one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from collections.abc import Sequence

from mos_pipeline.cli import (
    add,
    backup,
    chat,
    compact,
    doctor,
    export,
    forget,
    ingest,
    knowledge,
    migrate,
    optimize_model,
    profile,
    query,
    reembed,
    repay,
    respond,
    restore,
    retry,
    sessions,
    stats,
    top,
    verify,
)
from mos_pipeline.cli.exits import ExitCode, exit_code
from mos_pipeline.cli.opening import common_options
from mos_pipeline.cli.output import drop_stdout, logs_on_stderr, say
from mos_pipeline.cli.signals import Interrupted, Signals
from mos_pipeline.errors import MosError

__all__ = ["main"]

READING = (query, sessions, profile, knowledge)
KEEPING = (stats, top, verify, doctor, compact, optimize_model, reembed, retry, repay, backup, restore, export)
ANSWERING = (respond, chat)
COMMANDS = (ingest, migrate, add, *READING, *ANSWERING, forget, *KEEPING)
GONE = {errno.EPIPE, errno.EIO}  # of a pipe that nobody reads, as `head` leaves it, and of a terminal that was closed
EXITS = """exit codes:
  0 done   1 unexpected error   2 wrong usage   3 bad input or setting
  4 no store, or it can't be used; for top, its owner has ended
  5 a worker can't work (model missing)   6 not done in time   7 done, but records were left out
  129 SIGHUP   130 Ctrl-C   141 nobody takes the output   143 SIGTERM"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments after the program's name; those of this process where None.

    Raises:
        SystemExit: from argparse, for ``--help``, ``--version`` (0) and wrong usage (2).
    """
    args = _parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a lone surrogate of a page must not end a table
    with Signals() as signals, logs_on_stderr(verbose=args.verbose):
        return _run(args, signals)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mos-pipeline",
        description="Long-term memory for AI agents, in one folder.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands, common_options())
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from mos_pipeline import __version__

        print(f"mos-pipeline {__version__}")
        parser.exit()


def _run(args: argparse.Namespace, signals: Signals) -> int:
    try:
        code: ExitCode = args.run(args, signals)
        sys.stdout.flush()
    except Interrupted as stop:
        say("interrupted")
        drop_stdout()
        return 128 + stop.number
    except Exception as error:  # noqa: BLE001  the process's edge
        if isinstance(error, OSError) and error.errno in GONE:
            drop_stdout()
            return ExitCode.OUTPUT_CLOSED
        return _failed(error, verbose=args.verbose)
    return code


def _failed(error: Exception, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, MosError):
        say(f"error: {error}")
        return exit_code(error)
    hint = "" if verbose else "; --verbose shows where"
    say(f"error: unexpected {type(error).__name__}: {error}{hint}")
    return ExitCode.UNEXPECTED
