"""``mos-pipeline ingest``: read files into a store."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, store_option
from mos_pipeline.cli.output import print_json, say, table
from mos_pipeline.cli.progress import Moment, Progress, Rate
from mos_pipeline.cli.signals import Interrupted, Signals
from mos_pipeline.errors import BackpressureError, DeadlineError, InputError, MosError

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.ingest import SourceRecord
    from mos_pipeline.messages import SourceMark

__all__ = ["FORMATS", "add_parser"]

FORMATS = ("auto", "jsonl", "locomo")  # the readers' own list would cost the import of a JSON parser for --help
POLL_S = 0.2
ROOM_S = 0.05
DESCRIPTION = """Read files into a store, which is made if need be. Interrupted at any moment, even by SIGKILL, the
same command goes on where it was, and reading a file again takes only what was added to its end: a file is known by its
content, whatever its name and whatever options it was read with. Where the backlog is at its high-water mark the
command waits for as long as it takes."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("ingest", parents=[common], help="read files into a store", description=DESCRIPTION)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a file")
    store_option(parser, "the store's folder; made if need be")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="the files' format (default: %(default)s)")
    parser.add_argument("--user", metavar="ID", help="the user of records that name none")
    parser.add_argument("--assistant", metavar="ID", help="the assistant of records that name none")
    parser.add_argument(
        "--no-wait", action="store_true", help="end when all is accepted and written; the models work another time"
    )
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Summary:
    """What became of the records; ``accepted`` and ``already_there`` add up to ``read``."""

    store: str
    read: int = 0
    accepted: int = 0
    already_there: int = 0
    seconds: float = 0.0
    pages_per_second: float = 0.0
    backlog_pages: int = 0
    set_aside: int = 0


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Read the files, wait until they are worked off, and print a summary."""
    began = time.monotonic()
    _check_files(args)
    summary = Summary(str(args.store))
    try:
        # Waiting inside add could not be interrupted, so this command does the waiting.
        with opened(args, signals, backlog__policy="raise") as pipeline, signals.held():
            _Ingestion(pipeline, args, signals, summary).run()
    except (Interrupted, MosError) as end:
        _say_how_to_go_on(summary, end)
        raise
    summary.seconds = round(time.monotonic() - began, 3)
    summary.pages_per_second = round(summary.accepted / summary.seconds, 1)
    if args.json:
        print_json(asdict(summary))
    else:
        print(table(_rows(summary)))
    return ExitCode.OK


def _say_how_to_go_on(summary: Summary, end: BaseException) -> None:
    kept = f"note: {summary.accepted:,} pages were accepted and are kept"
    if isinstance(end, InputError) and summary.read:
        # What is read already is known by the file's content, which a correction changes.
        say(f"{kept}; a corrected file counts as a new one, so leave the records before the wrong one out of it")
    elif isinstance(end, Interrupted) or summary.read:
        say(f"{kept}; run the same command again to go on from there")


def _check_files(args: argparse.Namespace) -> None:
    """Find out before the store is opened what is wrong with a file at first sight."""
    from mos_pipeline.ingest import read_source
    from mos_pipeline.ingest.records import opened as opened_file

    for path in args.paths:
        read_source(path, args.format, args.user)
        with opened_file(path):
            pass
    if args.assistant == "":
        raise InputError("--assistant is empty; name an assistant, or leave it out")


class _Ingestion:
    """One run over an open store."""

    def __init__(self, pipeline: Memory, args: argparse.Namespace, signals: Signals, summary: Summary) -> None:
        self._pipeline = pipeline
        self._args = args
        self._signals = signals
        self._summary = summary
        self._progress = Progress(sys.stderr)
        self._rate = Rate()
        self._phase = "reading"
        self._work = 0

    def run(self) -> None:
        before = self._pipeline.stats().pages
        try:
            for path in self._args.paths:
                self._read(path)
            self._work_off()
        finally:
            self._progress.end()
            stats = self._pipeline.stats()
            summary = self._summary
            # An id that was known makes no new page; only the store can tell.
            summary.accepted = stats.pages - before
            summary.already_there = summary.read - summary.accepted
            summary.backlog_pages, summary.set_aside = stats.backlog_pages, len(stats.set_aside)

    def _read(self, path: Path) -> None:
        from mos_pipeline.ingest import identify, read_source
        from mos_pipeline.messages import SourceMark

        known = self._pipeline.sources()
        source = identify(path, map(_parsed_name, known))
        first = known.get(source.name, 0)
        for record in read_source(path, self._args.format, self._args.user):
            self._signals.check()
            self._progress.tick(self._moment)
            if record.ordinal < first:
                self._summary.already_there += 1
            else:
                self._add(record, SourceMark(source.name, record.ordinal), path)
                self._summary.accepted += 1
            self._summary.read += 1

    def _add(self, record: SourceRecord, mark: SourceMark, path: Path) -> None:
        from mos_pipeline.pipeline import DEFAULT_ASSISTANT

        assistant = self._args.assistant or DEFAULT_ASSISTANT
        while True:
            try:
                self._pipeline.add(
                    record.user_id,
                    record.user_input,
                    record.agent_response,
                    assistant_id=assistant if record.assistant_id is None else record.assistant_id,
                    timestamp=record.timestamp,
                    metadata=record.metadata,
                    page_id=record.page_id,
                    source=mark,
                )
            except BackpressureError:
                self._wait_for_room()
            except InputError as error:
                raise InputError(f"{path}, record {record.ordinal + 1}: {error}") from None
            else:
                return

    def _wait_for_room(self) -> None:
        self._signals.check()
        self._progress.tick(self._moment)
        if any(worker.state == "failed" for worker in self._pipeline.stats().workers.values()):
            self._pipeline.wait_idle(0.0)  # raises the reason
        time.sleep(ROOM_S)

    def _work_off(self) -> None:
        """Wait until everything is processed and written; with ``--no-wait`` until it is written."""
        self._phase, self._rate = "writing" if self._args.no_wait else "processing", Rate()
        wait = self._pipeline.flush if self._args.no_wait else self._pipeline.wait_idle
        while True:
            self._signals.check()
            self._progress.tick(self._moment)
            with suppress(DeadlineError):
                wait(timeout=POLL_S)
                return

    def _moment(self) -> Moment:
        stats, accepted = self._pipeline.stats(), self._summary.accepted
        loading = self._phase == "processing" and stats.workers["embedder"].state == "starting"
        if loading:
            self._rate = Rate()  # the model's pace, not the time it takes to load, tells what is left
        reading = self._phase == "reading"
        rate = self._rate(accepted if reading else stats.pages - stats.backlog_pages)
        # What is stored counts as backlog until its vectors have been read.
        backlog = stats.backlog_pages if stats.restored else None
        self._work = max(self._work, accepted, backlog or 0)
        share = 1 - (self._work if backlog is None else backlog) / max(1, self._work)
        left = backlog / rate if backlog is not None and rate and self._phase == "processing" else None
        phase = "loading" if loading else self._phase
        return Moment(phase, accepted, self._summary.already_there, rate, backlog, share, left)


def _parsed_name(name: bytes) -> tuple[bytes, int]:
    from mos_pipeline.ingest import SourceIdentity

    return SourceIdentity.parse_name(name)


def _rows(summary: Summary) -> list[tuple[str, str]]:
    rows = [
        ("pages read", f"{summary.read:,}"),
        ("accepted", f"{summary.accepted:,}"),
        ("already there", f"{summary.already_there:,}"),
        ("seconds", f"{summary.seconds:,.1f}"),
        ("pages/s", f"{summary.pages_per_second:,.0f}"),
        ("store", summary.store),
    ]
    if summary.backlog_pages:
        rows.insert(3, ("backlog", f"{summary.backlog_pages:,} pages wait for the model"))
    if summary.set_aside:
        rows.insert(3, ("set aside", f"{summary.set_aside:,} pages no worker could work on; see: mos-pipeline stats"))
    return rows
