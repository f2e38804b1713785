"""``mos-pipeline export``: write a store's pages to a file that ``ingest`` reads, or all memory as MemoryOS has it."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, store_option, stored
from mos_pipeline.cli.output import clean, counted, print_json, say
from mos_pipeline.cli.scope import all_pages
from mos_pipeline.cli.signals import Signals
from mos_pipeline.errors import InputError

if TYPE_CHECKING:
    from mos_pipeline.messages import Page

__all__ = ["add_parser"]

MEMORYOS = "memoryos"
DESCRIPTION = """Write the pages of a store as JSON Lines, in the order of acceptance: user_id, assistant_id,
user_input, agent_response, timestamp, metadata and page_id. Ingested into a new store they have the same ids, order,
timestamps and metadata. Metadata that JSON can't hold (bytes, keys that are no strings) is an error that names the
page; NaN and infinities are written as NaN and Infinity, which ingest reads, but not every JSON parser does. The file
appears under its name when it is complete. With --format memoryos OUT is a data folder that the original MemoryOS
opens: pages, sessions, profiles and knowledge of all users with one assistant; see docs/migration.md."""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "export", parents=[common], help="write a store's pages to a file", description=DESCRIPTION
    )
    parser.add_argument("out", metavar="OUT", help="the file to write, or - for stdout")
    store_option(parser)
    parser.add_argument("--format", choices=("jsonl", MEMORYOS), default="jsonl", help="how (default: %(default)s)")
    parser.add_argument("--user", metavar="ID", help="only this user's pages, with every assistant")
    parser.add_argument("--assistant", metavar="ID", help="with memoryos: the assistant, where there are several")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Write the pages, or all memory."""
    if args.format == MEMORYOS:
        return _export_memoryos(args, signals)
    if args.assistant is not None:
        raise InputError("--assistant is for --format memoryos; a line of JSONL tells its assistant itself")
    own_model = stored(args)
    with opened(args, signals, looks=True, workers=False, **own_model) as pipeline:
        lines = (_line(page) for page in all_pages(pipeline) if args.user in {None, page.user_id})
        if args.out == "-":
            count = _write(lines, sys.stdout.buffer)
        else:
            with _replacing(Path(args.out)) as file:
                count = _write(lines, file)
    if args.out != "-" and args.json:
        print_json({"pages": count, "out": args.out})
    else:
        say(f"{counted(count, 'page')} written to {'stdout' if args.out == '-' else args.out}")
    return ExitCode.OK


def _export_memoryos(args: argparse.Namespace, signals: Signals) -> ExitCode:
    from mos_pipeline.config import load_config
    from mos_pipeline.exporting import export_memoryos

    stored(args)
    if args.out == "-":
        raise InputError("-: a data folder of MemoryOS can't be written to stdout; name a folder")
    found = export_memoryos(
        args.store, load_config(args.config), Path(args.out), args.user, args.assistant, signals.check
    )
    for user_id in found.left_out:
        say(f"left out: user {clean(repr(user_id)):.100}: the format makes an id a folder's name, which this can't be")
    if args.json:
        print_json({**asdict(found), "out": args.out})
    else:
        pages, sessions = counted(found.pages, "page"), counted(found.sessions, "session")
        say(f"{counted(found.users, 'user')} with {pages} and {sessions} written to {args.out}")
    return ExitCode.LEFT_OUT if found.left_out else ExitCode.OK


def _write(lines: Iterator[bytes], file: BinaryIO) -> int:
    count = 0
    for line in lines:
        file.write(line)
        count += 1
    file.flush()
    return count


def _line(page: Page) -> bytes:
    _check(page.metadata, f"page {page.page_id}: metadata")
    record = {
        "user_id": page.user_id,
        "assistant_id": page.assistant_id,
        "user_input": page.user_input,
        "agent_response": page.agent_response,
        "timestamp": page.timestamp,
        "metadata": page.metadata,
        "page_id": page.page_id,
    }
    try:
        return f"{json.dumps(record, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 can't hold and an escape can
        return f"{json.dumps(record)}\n".encode()


def _check(value: Any, where: str) -> None:
    """Refuse what JSON would not give back as it was."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if type(key) is not str:
                raise InputError(f"{where} has the key {key!r}, JSON's are strings; read this page with the library")
            _check(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check(inner, f"{where}[{index}]")
    elif value is not None and not isinstance(value, str | int | float):
        raise InputError(f"{where} is of type {type(value).__name__}, which JSON can't hold; read it with the library")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a private file beside ``path`` for the block, and give it that name, durably, if the block comes through.

    Raises:
        InputError: ``path`` can't be written, or is there and not a regular file.
    """
    path = path.resolve()  # a link stays, what it points to is replaced
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file; name one, or - for stdout")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, not a path
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); name a writable file") from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
