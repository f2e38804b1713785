"""``mos-pipeline chat``: talk with a memory, question by question."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from mos_pipeline.cli.answering import answered, answering_options
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened
from mos_pipeline.cli.output import clean_lines, json_ready, say
from mos_pipeline.cli.signals import Signals
from mos_pipeline.errors import BackpressureError, DeadlineError, InputError, WorkerError

__all__ = ["add_parser"]

DESCRIPTION = """Read lines from the terminal, or from a pipe, and answer each as respond does. Ctrl-D ends the talk,
and so does Ctrl-C, at any time; what was said is kept. With --json, each answer is one line of JSON."""
PROMPT = "> "
CHUNK = 1 << 16
LONGEST = 1 << 24  # bytes of a line
PASSING = (InputError, BackpressureError, DeadlineError, WorkerError)  # of one question; the next one may go well


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "chat", parents=[common], help="talk with a user's memory in the terminal", description=DESCRIPTION
    )
    answering_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Answer line by line until the input ends."""
    shown = sys.stdin.isatty() and not args.json
    with opened(args, signals) as memory:
        for line in _lines(signals, PROMPT if shown else ""):
            try:
                _answer(memory, args, signals, line)
            except PASSING as error:
                say(f"error: {error}")
    if shown:
        print()
    return ExitCode.OK


def _answer(memory: Any, args: argparse.Namespace, signals: Signals, question: str) -> None:
    def write(piece: str) -> None:
        if not args.json:
            print(clean_lines(piece), end="", flush=True)

    response = answered(memory, args, signals, question, write)
    print(json.dumps(json_ready(dataclasses.asdict(response))) if args.json else "\n", flush=True)


def _lines(signals: Signals, prompt: str) -> Iterator[str]:
    """Yield the lines of stdin that hold something, as they come; ``prompt`` is shown before each.

    Raises:
        InputError: there is no stdin, or a line in it is too long.
    """
    if sys.stdin is None:
        raise InputError("there is no stdin, it was closed; pipe something into it")
    chunks, held, ended = _chunks(signals), b"", False
    while not ended or held:
        print(prompt, end="", flush=True)
        while b"\n" not in held and not ended:
            data = next(chunks, b"")
            held, ended = held + data, not data
            if len(held) > LONGEST:
                raise InputError(f"a line of stdin is longer than {LONGEST} bytes; ask in shorter ones")
        line, _, held = held.partition(b"\n")
        text = line.decode("utf-8", "replace").strip()
        if text:
            yield text


def _chunks(signals: Signals) -> Iterator[bytes]:
    """Yield what comes from stdin until it ends.

    A pipe or a terminal is read by its descriptor: of what Python's own buffer holds, no wait would tell.
    """
    stdin = sys.stdin.buffer
    while True:
        if stdin.seekable():
            data = stdin.read(CHUNK)
        else:
            signals.wait(descriptor=stdin.fileno())
            data = os.read(stdin.fileno(), CHUNK)
        if not data:
            return
        yield data
