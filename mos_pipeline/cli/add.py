"""``mos-pipeline add``: add one page."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.opening import opened, own_model, store_option
from mos_pipeline.cli.output import print_json
from mos_pipeline.cli.signals import Signals
from mos_pipeline.errors import InputError

__all__ = ["add_parser", "json_object"]

DESCRIPTION = """Add one page, from the options or, with -, from stdin as a JSON object with the names of the library's
arguments: user_id, user_input, agent_response, and where wanted assistant_id, timestamp, metadata, page_id. The store
is made if need be. Prints the page's id; the page is kept from then on. Where no other process has the store open the
models work on it another time."""
FIELDS = ("user_id", "user_input", "agent_response", "assistant_id", "timestamp", "metadata", "page_id")
NEEDED = FIELDS[:3]
MAX_STDIN = 64 << 20


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("add", parents=[common], help="add one page", description=DESCRIPTION)
    parser.add_argument("page", metavar="-", nargs="?", choices=("-",), help="read the page from stdin, as JSON")
    store_option(parser, "the store's folder; made if need be")
    parser.add_argument("--user", metavar="ID", dest="user_id", help="whose memory")
    parser.add_argument("--assistant", metavar="ID", dest="assistant_id", help="the assistant it was said to")
    parser.add_argument("--said", metavar="TEXT", dest="user_input", help="what the user said")
    parser.add_argument("--answered", metavar="TEXT", dest="agent_response", help="what the assistant answered")
    parser.add_argument("--timestamp", metavar="TIME", help="when it was said (default: now)")
    parser.add_argument("--metadata", metavar="JSON", type=json_object, help="a JSON object that is kept with the page")
    parser.add_argument("--id", metavar="ID", dest="page_id", help="an id of your own; the same id twice is one page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, signals: Signals) -> ExitCode:
    """Add the page and print its id."""
    page = _page(args)
    with opened(args, signals, workers=False, **own_model(args)) as pipeline, signals.held():
        page_id = pipeline.add(page.pop("user_id"), page.pop("user_input"), page.pop("agent_response"), **page)
    if args.json:
        print_json({"page_id": page_id})
    else:
        print(page_id)
    return ExitCode.OK


def _page(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``add``: those of stdin, and over them those of the options."""
    page = _from_stdin() if args.page == "-" else {}
    page |= {name: value for name in FIELDS if (value := getattr(args, name)) is not None}
    missing = [name for name in NEEDED if name not in page]
    if missing:
        raise InputError(f"a page needs {', '.join(NEEDED)}; missing: {', '.join(missing)} (see --help)")
    return page


def _from_stdin() -> dict[str, Any]:
    text = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(text) > MAX_STDIN:
        raise InputError(f"stdin holds more than {MAX_STDIN} bytes; use ingest for many pages")
    try:
        page = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"stdin holds no JSON ({error}); it must be one object") from None
    if not isinstance(page, dict):
        raise InputError(f"stdin must hold one JSON object, found {type(page).__name__}")
    unknown = page.keys() - set(FIELDS)
    if unknown:
        raise InputError(f"unknown fields {sorted(unknown)}; known are {', '.join(FIELDS)}")
    return {name: value for name, value in page.items() if value is not None}


def json_object(text: str) -> dict[str, Any]:
    """Read an option's value as a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


json_object.__name__ = "JSON object"  # argparse names the type so in its message
