"""``mos-pipeline migrate``: take over a data folder of the original MemoryOS."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened_to_look, store_option
from mos_pipeline.cli.output import print_json, say, table
from mos_pipeline.cli.scope import assistant_of
from mos_pipeline.cli.signals import Interrupted, Signals, terminal_blocked
from mos_pipeline.errors import DeadlineError, InputError

if TYPE_CHECKING:
    from mos_pipeline.migration import Migration, MigrationStore

__all__ = ["add_parser"]

POLL_S = 0.2
SHOWN = 20
DESCRIPTION = """Take over a data folder of the original MemoryOS (its data_storage_path), plain or gzipped: pages with
their ids and links, sessions with their heat, profiles, knowledge, and embeddings where they are the store's model's.
The folder is only read. Interrupted at any moment, even by SIGKILL, the same command goes on where it was; done twice
it changes nothing. What can't be taken is named by file and field and left out, and the command ends with 7."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "migrate", parents=[common], help="take over a data folder of the original MemoryOS", description=DESCRIPTION
    )
    parser.add_argument("folder", metavar="LEGACY", type=Path, help="the data folder, with users/ in it")
    store_option(parser, "the store's folder; made if need be")
    parser.add_argument(
        "--assistant", metavar="ID", help="the assistant of all pages, as the files don't say which it was"
    )
    parser.add_argument("--dry-run", action="store_true", help="only count what there is; nothing is changed")
    parser.add_argument(
        "--no-wait", action="store_true", help="end when all is taken over and written; the models work another time"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Move the folder, wait until what is left to do is done, and print a report."""
    from mos_pipeline.config import load_config
    from mos_pipeline.legacy.folder import LegacyFolder
    from mos_pipeline.migration import Migration

    if args.assistant == "":
        raise InputError("--assistant is empty; name one, or leave it out")
    folder, store = LegacyFolder(args.folder), args.store.resolve()
    if args.folder.resolve() in (store, *store.parents):
        raise InputError(f"{args.store}: lies in the folder that is read; name a store outside of it")
    migration = Migration(folder, assistant_of(args), load_config(args.config), signals.check)
    if args.assistant is None and folder.assistants and assistant_of(args) not in folder.assistants:
        named = ", ".join(map(repr, folder.assistants[:5]))
        say(f"note: pages go under {assistant_of(args)!r}; the folder names {named} (--assistant)")
    if args.dry_run:
        _count(args, migration)
    else:
        try:
            with _store(args, migration, signals) as opened, signals.held():
                migration.run(opened)
                _work_off(opened, signals, wait=not args.no_wait)
        except Interrupted:
            say("note: what was taken over is kept; run the same command again to go on from there")
            raise
    return _show(args, migration)


def _count(args: argparse.Namespace, migration: Migration) -> None:
    with opened_to_look(args) as memory:
        migration.count(memory)


@contextmanager
def _store(args: argparse.Namespace, migration: Migration, signals: Signals) -> Iterator[MigrationStore]:
    from mos_pipeline.migration import MigrationStore

    with terminal_blocked():
        store = MigrationStore.begin(args.store, args.config, migration.scopes)
    try:
        yield store
    finally:
        with signals.held():
            store.close()


def _work_off(store: MigrationStore, signals: Signals, *, wait: bool) -> None:
    while True:
        signals.check()
        with suppress(DeadlineError):
            (store.wait_idle if wait else store.flush)(timeout=POLL_S)
            return


def _show(args: argparse.Namespace, migration: Migration) -> ExitCode:
    report = migration.report
    for problem in report.set_aside[:SHOWN]:
        say(f"left out: {problem}")
    if len(report.set_aside) > SHOWN:
        say(f"and {len(report.set_aside) - SHOWN:,} more; --json tells all")
    if args.json:
        print_json({**report.as_dict(), "dry_run": args.dry_run, "store": str(args.store)})
    else:
        print(table([*report.rows(), ("store", str(args.store))]))
    return ExitCode.LEFT_OUT if report.set_aside else ExitCode.OK
