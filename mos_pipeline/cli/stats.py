"""``mos-pipeline stats``: what a store holds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import RESTORE_S, opened, restored, store_option, stored
from mos_pipeline.cli.output import as_bytes, counted, described, print_json, table
from mos_pipeline.cli.signals import Signals
from mos_pipeline.metrics import prometheus

if TYPE_CHECKING:
    from mos_pipeline.metrics import Stats, TaskStats

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "stats",
        parents=[common],
        help="show what a store holds",
        description="Show what a store holds. Where another process has it open, that one is asked.",
    )
    store_option(parser)
    parser.add_argument("--prometheus", action="store_true", help="print the figures in Prometheus' text format")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Print the store's figures."""
    with opened(args, signals, looks=True, workers=False, **stored(args)) as pipeline:
        stats = restored(pipeline)
    if args.prometheus:
        print(prometheus(stats), end="")
    elif args.json:
        print_json(stats.as_dict())
    else:
        print(table(_rows(stats)))
    return ExitCode.OK


def _rows(stats: Stats) -> list[tuple[str, str]]:
    rows = [
        ("store", stats.path),
        ("pages", f"{stats.pages:,}"),
        ("users", f"{stats.users:,}"),
        ("sessions", f"{stats.sessions:,}"),
        ("facts", f"{stats.facts:,}"),
        ("forgotten", f"{counted(stats.forgotten, 'page')} still on the disk"),
        ("backlog", f"{counted(stats.backlog_pages, 'page')}, {as_bytes(stats.backlog_bytes)}"),
        ("on their way", f"{counted(stats.waiting_pages, 'page')} into sessions"),
        ("vectors", f"{stats.vectors:,}, {as_bytes(stats.vector_bytes)} of memory"),
        ("model", described(stats.model)),
        *([("computed", _computed(stats.embedder))] if stats.embedder else []),
        *([("to make again", f"{counted(stats.unlifted, 'vector')} by another model")] if stats.unlifted else []),
        ("set aside", counted(len(stats.set_aside), "page")),
        ("damage", counted(len(stats.damage), "place")),
    ]
    rows += [("llm endpoint", stats.endpoint)] if stats.endpoint else []
    rows += [(f"llm {name}", _task(task)) for name, task in stats.tasks.items()]
    rows += [(f"owed {name}", f"of {counted(pages, 'page')}") for name, pages in stats.owed.items()]
    rows += [(f"  {page_id}", reason) for page_id, reason in stats.set_aside.items()]
    rows += [("  damage", place) for place in stats.damage]
    if not stats.restored:
        rows.append(("note", f"the store was still being read after {RESTORE_S:.0f} s: the figures are not final"))
    return rows


def _computed(embedder: dict[str, Any]) -> str:
    """Return how vectors are computed, as it was chosen when the model warmed up."""
    batches = f"batches of {embedder['batch_word_pieces']:,} word pieces in {embedder['ms_per_batch']:g} ms"
    return f"{embedder['backend']}, {embedder['precision']}, {counted(embedder['threads'], 'thread')}, {batches}"


def _task(task: TaskStats) -> str:
    made = f"{counted(task.calls, 'call')}, {task.tokens_in:,} + {task.tokens_out:,} tokens"
    took = f"median {task.median_ms:,} ms, p99 {task.p99_ms:,} ms"
    return f"{made}, {took}; {task.retries:,} retries, {task.repairs:,} repairs, {task.fallbacks:,} fallbacks"
