"""Reading sources into an open store, and waiting for what becomes of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from mos_pipeline.cli.output import say
from mos_pipeline.cli.progress import Moment, Progress, Rate
from mos_pipeline.cli.scope import assistant_of
from mos_pipeline.cli.sending import Sender
from mos_pipeline.cli.signals import Signals
from mos_pipeline.errors import DeadlineError, InputError, MosError, RecordError

if TYPE_CHECKING:
    from mos_pipeline.cli.left_out import LeftOut
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.ingest import Reading, SourceFile
    from mos_pipeline.ingest.resume import Taken

__all__ = ["Ingestion"]

POLL_S = 0.2
ROOM_S = 0.05


class Ingestion:
    """One run over an open store."""

    def __init__(
        self,
        pipeline: Memory,
        sources: Sequence[SourceFile],
        reading: Reading,
        args: argparse.Namespace,
        signals: Signals,
        left_out: LeftOut,
    ) -> None:
        self._pipeline = pipeline
        self._sources = sources
        self._reading = replace(reading, pulse=self._pulse)
        self._no_wait = bool(args.no_wait)
        self._signals = signals
        self._left_out = left_out
        self._sender = Sender(pipeline, assistant_of(args), left_out, self._wait_for_room)
        self._summary = left_out.summary
        self._progress = Progress(sys.stderr)
        self._rate = Rate()
        self._phase = "reading"
        self._work = 0

    def run(self) -> None:
        """Read everything and have it worked off."""
        try:
            for source in self._sources:
                self._read(source)
            self._work_off()
        finally:
            self._progress.end()
            with suppress(MosError):  # what ended this run, if anything has, says more than an owner that is gone
                stats = self._pipeline.stats()
                self._summary.backlog_pages, self._summary.set_aside = stats.backlog_pages, len(stats.set_aside)

    def _read(self, source: SourceFile) -> None:
        for taken in self._readable(source):
            self._take(taken)
            if source.lines and not source.stream.at_hand():
                self._sender.flush()
        self._sender.flush()  # the store has to know of all of it before it is asked how far the next source was read

    def _pulse(self) -> None:
        self._signals.check()
        self._progress.tick(self._moment)

    def _readable(self, source: SourceFile) -> Iterator[Taken]:
        """Yield what is to be taken of a source, as far as it can be read."""
        from mos_pipeline.ingest import resumed, wrong_at_first
        from mos_pipeline.ingest.resume import Taken

        name, told = source.stream.name, 0
        try:
            if source.stream.once:
                for error in wrong_at_first(source, self._reading):
                    yield Taken(error, None)
                    told += 1
            found = resumed(source, self._reading, self._pipeline.sources())
            if found.changed:
                say(f"note: {name} begins like a file that was read before, but differs: it is read as a new one")
            if source.lines:
                self._summary.passed_bytes += found.start
            self._summary.already_there += found.there
            self._summary.read += found.there
            yield from islice(found.taken, 0 if found.start else told, None)
        except InputError as error:
            self._sender.flush()  # what comes before was read
            self._left_out.rest_of(error)

    def _take(self, taken: Taken) -> None:
        record = taken.item
        if isinstance(record, RecordError):
            self._sender.flush()  # in their order: one before it may be the end
            self._left_out.record(record)
        elif taken.mark is None:
            self._summary.already_there += 1
            self._summary.read += 1
        else:
            self._sender.put(record, taken.mark)

    def _wait_for_room(self) -> None:
        self._pulse()
        if any(worker.state == "failed" for worker in self._pipeline.stats().workers.values()):
            self._pipeline.wait_idle(0.0)  # raises the reason
        self._signals.wait(ROOM_S)

    def _work_off(self) -> None:
        """Wait until everything is processed and written; with ``--no-wait`` until it is written."""
        self._phase, self._rate = "writing" if self._no_wait else "processing", Rate()
        wait = self._pipeline.flush if self._no_wait else self._pipeline.wait_idle
        while True:
            self._pulse()
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
