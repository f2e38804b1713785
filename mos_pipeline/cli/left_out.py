"""Records that can't be taken: the end, a note, or a line in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mos_pipeline.cli.output import say
from mos_pipeline.errors import InputError, RecordError

if TYPE_CHECKING:
    from mos_pipeline.cli.summary import Summary
    from mos_pipeline.ingest import SourceRecord
    from mos_pipeline.ingest.quarantine import Quarantine

__all__ = ["LeftOut", "refused"]

SHOWN = 10


class LeftOut:
    """What ``--on-error`` asks for.

    Attributes:
        stop: whether the first record that can't be taken is the end.
    """

    def __init__(self, on_error: str, quarantine: Quarantine | None, summary: Summary) -> None:
        """Count in ``summary``; ``on_error`` is ``stop``, ``skip`` or ``quarantine``."""
        self.stop = on_error == "stop"
        self._quarantine = quarantine
        self.summary = summary

    def record(self, error: RecordError) -> None:
        """Leave out a record.

        Raises:
            RecordError: the first one is the end.
            InputError: it can't be written to the quarantine.
        """
        if self.stop:
            raise error
        if self._quarantine is not None:
            self._quarantine.put(error)
            self.summary.quarantine = str(self._quarantine.path)
        self._count(error)

    def rest_of(self, error: InputError) -> None:
        """Leave out what comes in a file that can't be read on.

        Raises:
            InputError: the first one is the end.
        """
        if self.stop:
            raise error
        self._count(error)

    def _count(self, error: InputError) -> None:
        summary = self.summary
        summary.left_out += 1
        if summary.left_out <= SHOWN:
            say(f"left out: {error}")
        elif summary.left_out == SHOWN + 1:
            say("more is left out, and only counted from here on")


def refused(record: SourceRecord, error: InputError) -> RecordError:
    """Return the error of a record that was read, and that the store refuses."""
    found = record.spot.error(str(error))
    found.raw, found.format = record.raw, record.format
    if record.format != "jsonl":  # the other pages of its conversation were taken: it is left out alone
        found.raw, found.format = _as_line(record), "jsonl"
    return found


def _as_line(record: SourceRecord) -> bytes:
    fields = ("user_id", "assistant_id", "user_input", "agent_response", "timestamp", "metadata", "page_id")
    return json.dumps({name: getattr(record, name) for name in fields}).encode()
