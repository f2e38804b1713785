"""``mos-pipeline ingest``: read files into a store."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.dry_run import DryRun
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.ingestion import Ingestion
from mos_pipeline.cli.left_out import LeftOut
from mos_pipeline.cli.opening import opened, opened_to_look, store_option, tier_of, tier_option
from mos_pipeline.cli.output import counted, print_json, say, table
from mos_pipeline.cli.scope import assistant_of
from mos_pipeline.cli.signals import Interrupted, Signals
from mos_pipeline.cli.summary import Summary
from mos_pipeline.errors import InputError, MosError

if TYPE_CHECKING:
    from mos_pipeline.ingest import Reading
    from mos_pipeline.ingest.inputs import Inputs
    from mos_pipeline.ingest.quarantine import Quarantine
    from mos_pipeline.ingest.streams import Stream

__all__ = ["FORMATS", "add_parser"]

# The readers' own list would cost the import of a JSON parser for --help.
FORMATS = ("auto", "jsonl", "messages", "chatgpt", "claude", "locomo", "mem0", "quarantine")
UNKNOWN_SHOWN = 5
DESCRIPTION = """Read files into a store, which is made if need be. Interrupted at any moment, even by SIGKILL, the
same command goes on where it was, and reading a file again takes only what was added to its end: a file is known by
its content, whatever its name and whatever options it was read with. Files may be compressed (gzip, zstd); a pipe need
not end: tail -n +1 -f FILE | mos-pipeline ingest - --store DIR. Where the backlog is at its high-water mark the
command waits for as long as it takes. Ends with 7 where something was left out."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("ingest", parents=[common], help="read files into a store", description=DESCRIPTION)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="a file, a folder, or - for stdin: line by line, as it comes",
    )
    store_option(parser, "the store's folder; made if need be")
    tier_option(parser, "static: a quick model, for bulk loads; `reembed --tier full` lifts them; not beside an owner")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="the files' format (default: %(default)s)")
    parser.add_argument("--user", metavar="ID", help="the user of records that name none")
    parser.add_argument("--user-field", metavar="NAME", default="", help="where a record names its user: account.uuid")
    parser.add_argument("--assistant", metavar="ID", help="the assistant of records that name none")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip", "quarantine"),
        default="stop",
        help="what becomes of a record that can't be taken; quarantine writes it to a file (default: %(default)s)",
    )
    parser.add_argument("--quarantine", metavar="FILE", type=Path, help="that file (default: STORE.quarantine.jsonl)")
    parser.add_argument(
        "--dry-run", action="store_true", help="only count what is new, and what is there already; nothing is changed"
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="end when all is accepted and written; the models work another time"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Read the files, wait until they are worked off, and print a summary."""
    began = time.monotonic()
    reading = _reading(args)
    summary = Summary(str(args.store))
    try:
        with _inputs(args, signals) as inputs, _quarantine(args, inputs) as quarantine:
            left_out = LeftOut(args.on_error, quarantine, summary)
            if args.dry_run:
                with opened_to_look(args) as memory:
                    return DryRun(memory, assistant_of(args), reading, left_out, signals).run(
                        inputs.sources, as_json=args.json
                    )
            with opened(args, signals, **tier_of(args)) as pipeline, signals.held():
                Ingestion(pipeline, inputs.sources, reading, args, signals, left_out).run()
    except (Interrupted, MosError) as end:
        if not args.dry_run:
            _say_how_to_go_on(summary, end)
            if isinstance(end, Interrupted):  # of a stream that has no end it is the usual one
                with suppress(OSError):  # nobody may be left to read it
                    _show(args, summary, reading, began)
        raise
    _show(args, summary, reading, began)
    return summary.code


def _show(args: argparse.Namespace, summary: Summary, reading: Reading, began: float) -> None:
    summary.left_on_purpose = dict(sorted((+reading.tally).items()))
    summary.finish(time.monotonic() - began)
    if args.json:
        print_json(summary.as_dict())
    else:
        print(table(summary.rows()))


def _reading(args: argparse.Namespace) -> Reading:
    """Check the options, before anything is opened."""
    from mos_pipeline.config import load_config
    from mos_pipeline.ingest import Reading

    config = load_config(args.config)
    for name in ("user", "assistant"):
        if getattr(args, name) == "":
            raise InputError(f"--{name} is empty; name one, or leave it out")
    return Reading(args.user, args.user_field, config.retrieval.sitting_key, config.store.max_page_bytes)


@contextmanager
def _inputs(args: argparse.Namespace, signals: Signals) -> Iterator[Inputs]:
    """Find out before the store is opened what is wrong with a file at first sight."""
    from mos_pipeline.ingest.inputs import inputs_of

    with _stdin(args, signals) as stdin:
        inputs = inputs_of(args.paths, args.format, stdin, (args.store, _quarantine_path(args)))
        if inputs.unknown:
            shown = ", ".join(map(str, inputs.unknown[:UNKNOWN_SHOWN]))
            more = ", …" if len(inputs.unknown) > UNKNOWN_SHOWN else ""
            say(f"note: {counted(len(inputs.unknown), 'file')} of no known format left out: {shown}{more}")
        yield inputs


def _stdin(args: argparse.Namespace, signals: Signals) -> AbstractContextManager[Stream | None]:
    from mos_pipeline.ingest.piped import from_stdin
    from mos_pipeline.ingest.streams import STDIN

    if STDIN not in args.paths:
        return nullcontext()
    if args.paths.count(STDIN) > 1:
        raise InputError("- is named twice, and stdin can be read once; name it once")
    if sys.stdin is None:
        raise InputError("-: there is no stdin, it was closed; pipe something into it")
    return from_stdin(sys.stdin.buffer, args.store, lambda descriptor: signals.wait(descriptor=descriptor))


def _quarantine_path(args: argparse.Namespace) -> Path:
    return args.quarantine or Path(f"{args.store.absolute()}.quarantine.jsonl")


@contextmanager
def _quarantine(args: argparse.Namespace, inputs: Inputs) -> Iterator[Quarantine | None]:
    if args.on_error != "quarantine" or args.dry_run:
        yield None
        return
    from mos_pipeline.ingest.quarantine import Quarantine

    path = _quarantine_path(args)
    if any(source.stream.path.resolve() == path.resolve() for source in inputs.sources):
        raise InputError(f"{path} is read, and would be written to; name another file with --quarantine")
    with Quarantine(path) as quarantine:
        yield quarantine


def _say_how_to_go_on(summary: Summary, end: BaseException) -> None:
    kept = f"note: {summary.accepted:,} pages were accepted and are kept"
    if isinstance(end, InputError) and summary.read:
        say(f"{kept}; mend what is wrong and run the same command again to go on from there, or see --on-error")
    elif isinstance(end, Interrupted) or summary.read:
        say(f"{kept}; run the same command again to go on from there")
