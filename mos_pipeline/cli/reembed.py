"""``mos-pipeline reembed``: have a store's vectors made again by another model."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import restored, store_option, stored, tier_of, tier_option
from mos_pipeline.cli.output import as_bytes, as_duration, counted, described, print_json, say, table
from mos_pipeline.cli.progress import Progress, Rate
from mos_pipeline.cli.signals import Interrupted, Signals, terminal_blocked
from mos_pipeline.errors import DeadlineError, StoreLockedError

if TYPE_CHECKING:
    from mos_pipeline.messages import Compacted
    from mos_pipeline.metrics import Stats
    from mos_pipeline.pipeline import MemoryPipeline

__all__ = ["add_parser"]

POLL_S = 0.2
DESCRIPTION = """Have the store's vectors made again by the configured model, or by --model, and wait for it: of pages,
summaries and facts. Nothing else changes. Interrupted at any moment, even by SIGKILL, it goes on when the store is
opened next with that model, by this command or by any program. A program does the same while it serves, with
MemoryPipeline.open(..., reembed=True); beside one that has the store open, this command is refused."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "reembed", parents=[common], help="change the embedding model of a store", description=DESCRIPTION
    )
    store_option(parser)
    parser.add_argument("--model", metavar="NAME", help="a model's name or folder (default: embedding.model)")
    tier_option(parser, "the model's tier: full lifts a store that was loaded with the static one")
    parser.add_argument("--compact", action="store_true", help="then take the old vectors from the disk at once")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Have vectors made, show how far it is, and print what came of it."""
    stored(args)
    try:
        with _opened(args, signals) as memory:
            before, begun = restored(memory), time.monotonic()
            _wait(memory, before, signals)
            result = memory.compact() if args.compact else None
            after, seconds = memory.stats(), time.monotonic() - begun
    except Interrupted:
        say("note: what was made again is kept; the same command goes on from there")
        raise
    if args.json:
        _print_json(before, after, seconds, result)
    else:
        print(table(_rows(before, after, seconds, result)))
    return ExitCode.OK


@contextmanager
def _opened(args: argparse.Namespace, signals: Signals) -> Iterator[MemoryPipeline]:
    from mos_pipeline.pipeline import MemoryPipeline

    overrides = {} if args.model is None else {"embedding__model": args.model}
    overrides |= tier_of(args)
    memory = None
    try:
        with terminal_blocked():
            memory = MemoryPipeline.open(args.store, config=args.config, reembed=True, **overrides)
        yield memory
    except StoreLockedError as locked:
        raise StoreLockedError(
            f"{locked}. Its owner works with a model of its own: end it and run this again, or have it open the store "
            "with reembed=True itself; `stats` tells how far it is",
            locked.pid,
        ) from None
    finally:
        if memory is not None:
            with signals.held():
                memory.close()


@dataclass(frozen=True, slots=True)
class _Moment:
    """How far it is: vectors made again, of all, and how many a second."""

    phase: str
    made: int
    total: int
    rate: float | None

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return self.made / self.total if self.total else 0.0

    def text(self) -> str:
        """Return it in words."""
        parts = [f"{self.made:,} of {counted(self.total, 'vector')}"]
        if self.rate:
            left = as_duration((self.total - self.made) / self.rate)
            parts += [f"{self.rate:,.0f} vectors/s", f"{left} left"]
        return ", ".join(parts)


def _wait(memory: MemoryPipeline, before: Stats, signals: Signals) -> None:
    progress, rate = Progress(sys.stderr), Rate()

    def moment() -> _Moment:
        stats = memory.stats()
        made = before.unlifted - stats.unlifted
        loading = stats.workers["embedder"].state == "starting"
        return _Moment("loading" if loading else "embedding", made, before.unlifted, None if loading else rate(made))

    try:
        while True:
            signals.check()
            with suppress(DeadlineError):
                memory.wait_idle(POLL_S)
                return
            progress.tick(moment)
    finally:
        progress.end()


def _print_json(before: Stats, after: Stats, seconds: float, result: Compacted | None) -> None:
    made = before.unlifted - after.unlifted
    compaction = None if result is None else dataclasses.asdict(result)
    told = {"model": after.model, "made_again": made, "left": after.unlifted, "seconds": round(seconds, 1)}
    print_json({**told, "set_aside": after.set_aside, "compaction": compaction})


def _rows(before: Stats, after: Stats, seconds: float, result: Compacted | None) -> list[tuple[str, str]]:
    made = before.unlifted - after.unlifted
    rows = [
        ("store", after.path),
        ("model", described(after.model)),
        (
            "made again",
            f"{counted(made, 'vector')} in {as_duration(seconds)}" if made else "nothing: all are this model's",
        ),
    ]
    if after.unlifted:
        rows.append(("left", f"{counted(after.unlifted, 'vector')}, which could not be made; see the log"))
    if after.set_aside:
        rows.append(("set aside", counted(len(after.set_aside), "page")))
    if result is not None:
        rows.append(("segments", f"{as_bytes(result.after)}, before {as_bytes(result.before)}"))
    return rows
