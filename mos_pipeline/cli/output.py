"""What people and machines read: cut texts, tables, JSON; notes on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = [
    "as_bytes",
    "as_duration",
    "clean",
    "clean_lines",
    "counted",
    "cut",
    "described",
    "drop_stdout",
    "fitted",
    "indented",
    "json_ready",
    "labelled",
    "logs_on_stderr",
    "print_json",
    "say",
    "table",
    "to_stderr",
    "width",
]

CLEAR_LINE = "\r\x1b[K"
FALLBACK_WIDTH = 100
INDENT = 5  # cells
LABEL = 10  # cells of "assistant" and a space


def described(model: Mapping[str, Any]) -> str:
    """Return a store's embedding model in words, from its identity."""
    if not model:
        return "none yet"
    tier = f", {model['tier']} tier" if "tier" in model else ""
    return f"{model['model']}, {model['dimension']} dimensions{tier}"


def say(text: str) -> None:
    """Write one clean line to stderr, over the progress bar if there is one: it may name what stands in a file."""
    _line_to_stderr(f"{clean(text)}\n")


def _line_to_stderr(text: str) -> None:
    to_stderr(sys.stderr, f"{CLEAR_LINE}{text}" if sys.stderr.isatty() else text)


def to_stderr(stream: TextIO, text: str) -> None:
    """Write to stderr; where nobody takes it any more, as of a closed terminal, the command goes on without."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        _to_nowhere(stream)


def drop_stdout() -> None:
    """Give out what is left to be written to stdout, or have it go nowhere where nobody takes it."""
    try:
        sys.stdout.flush()
    except OSError:
        _to_nowhere(sys.stdout)


def _to_nowhere(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere: Python would complain at exit, and end with a code of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def width() -> int:
    """Return how many cells a line of stdout has: the terminal's, or 100 where there is none."""
    return shutil.get_terminal_size((FALLBACK_WIDTH, 24)).columns


def clean(text: str) -> str:
    """Return ``text`` as one line without what a terminal would obey: escape sequences, reordering marks."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


def clean_lines(text: str) -> str:
    """Return ``text`` with its lines as they are, without what a terminal would obey; piece by piece if need be."""
    return "".join(char if char.isprintable() or char == "\n" else " " * (char == "\t") for char in text)


def cut(text: str, cells: int) -> str:
    """Return ``text`` as one clean line of at most ``cells`` terminal cells, with an ellipsis where it was cut."""
    return fitted(clean(text[: 16 * cells + 64]), cells)


def fitted(text: str, cells: int) -> str:
    """Return ``text``, which is one clean line, as it is, or cut to ``cells`` terminal cells with an ellipsis."""
    if sum(map(_cells, text)) <= cells:
        return text
    kept, used = [], 1
    for char in text:
        used += _cells(char)
        if used > cells:
            break
        kept.append(char)
    return "".join(kept) + "…"


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def indented(text: str) -> str:
    """Return ``text`` as an indented line cut to the terminal, to stand under a heading."""
    return f"{' ' * INDENT}{cut(text, width() - INDENT)}"


def labelled(label: str, text: str) -> str:
    """Return ``text`` as ``indented`` does, after its label."""
    return f"{' ' * INDENT}{label:<{LABEL}}{cut(text, width() - INDENT - LABEL)}"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows of a name and a value as aligned lines."""
    indent = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{indent}}  {value}".rstrip() for name, value in rows)


def counted(count: int, noun: str) -> str:
    """Return a number and what it counts, in the plural where it is not 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def as_bytes(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    if count < 1024:
        return counted(count, "byte")
    size, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"{size:,.1f} {unit}"


def as_duration(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_json(data: Mapping[str, Any]) -> None:
    """Print an object as JSON in ASCII, which any locale's stdout takes."""
    print(json.dumps(json_ready(data), indent=2))


def json_ready(value: Any) -> Any:
    """Return ``value`` with everything that JSON can't hold (bytes, NaN, keys that are no strings) as its repr."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else repr(key): json_ready(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(inner) for inner in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return repr(value)


@contextmanager
def logs_on_stderr(*, verbose: bool) -> Iterator[None]:
    """Show the library's warnings, and what it says besides where ``verbose``, on stderr."""
    logger, handler = logging.getLogger("mos_pipeline"), _StderrHandler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _line_to_stderr(f"{record.levelname.lower()}: {self.format(record)}\n")
