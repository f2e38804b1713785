"""JSON whose values lie in one another to some depth and no deeper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from mos_pipeline.errors import InputError

__all__ = ["MAX_DEPTH", "shallow_events"]

MAX_DEPTH = 100


def shallow_events(file: BinaryIO, path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield the events of ``ijson.parse``, which remembers the whole way to each value: memory grows with its square.

    Raises:
        InputError: values are nested more than ``MAX_DEPTH`` deep.
        ijson.JSONError: it is no JSON.
    """
    events: Iterator[tuple[str, str, Any]] = ijson.parse(_counted(file, path))
    return events


def _counted(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    depth = 0
    for event, value in ijson.basic_parse(file, use_float=True):
        if event in {"start_map", "start_array"}:
            depth += 1
            if depth > MAX_DEPTH:
                raise InputError(f"{path}: nested more than {MAX_DEPTH} deep; is it what it should be?")
        elif event in {"end_map", "end_array"}:
            depth -= 1
        yield event, value
