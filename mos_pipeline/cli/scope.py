"""Whose memory a command is about, and which part of a long list it shows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from mos_pipeline.cli.opening import natural_int, opened, positive_int, restored, store_option, stored
from mos_pipeline.cli.output import say
from mos_pipeline.cli.signals import Signals

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.messages import Page

__all__ = [
    "Part",
    "all_pages",
    "assistant_of",
    "has_pages",
    "part_options",
    "part_with",
    "scope_options",
    "show_next",
    "with_stored",
]

PAGES_AT_ONCE = 500
LIMIT = 100

T = TypeVar("T")


class Part(NamedTuple, Generic[T]):
    """Items of a list from ``--offset`` on.

    Attributes:
        next_offset: where the rest begins; None where there is none.
    """

    items: list[T]
    next_offset: int | None


def scope_options(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``--store``, ``--user`` and ``--assistant``."""
    store_option(parser)
    parser.add_argument("--user", metavar="ID", required=True, help=meaning)
    parser.add_argument("--assistant", metavar="ID", help="the assistant it was said to")


def part_options(parser: argparse.ArgumentParser, noun: str) -> None:
    """Add ``--offset`` and ``--limit``."""
    parser.add_argument(
        "--offset", metavar="N", type=natural_int, default=0, help=f"pass over N {noun} (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive_int, default=LIMIT, help=f"at most N {noun} (default: %(default)s)"
    )


def assistant_of(args: argparse.Namespace) -> str:
    """Return the assistant that was named, or the default one."""
    from mos_pipeline.pipeline import DEFAULT_ASSISTANT

    return DEFAULT_ASSISTANT if args.assistant is None else str(args.assistant)


def has_pages(pipeline: Memory, args: argparse.Namespace) -> bool:
    """Return whether the user has pages with the assistant; where not, say so on stderr."""
    assistant = assistant_of(args)
    if pipeline.pages(args.user, assistant_id=assistant, limit=1):
        return True
    hint = "; this user has pages with another: name it with --assistant" if args.user in pipeline.users() else ""
    say(f"note: there are no pages of user {args.user!r} with assistant {assistant!r}{hint}")
    return False


def with_stored(args: argparse.Namespace, signals: Signals, look: Callable[[Memory], T]) -> T:
    """Return what ``look`` finds in the store, which is opened without workers and read to its end before."""
    with opened(args, signals, looks=True, workers=False, **stored(args)) as pipeline:
        restored(pipeline)
        return look(pipeline)


def part_with(args: argparse.Namespace, read: Callable[[int, int], list[T]]) -> Part[T]:
    """Return the part of a list that was asked for; ``read`` takes an offset and a limit."""
    items = read(args.offset, args.limit + 1)  # one more tells whether there are more
    end = args.offset + args.limit
    return Part(items[: args.limit], end if len(items) > args.limit else None)


def show_next(part: Part[Any]) -> None:
    """Say on stderr how the rest of a list is shown, if there is one."""
    if part.next_offset is not None:
        say(f"note: there are more; see them with --offset {part.next_offset}")


def all_pages(pipeline: Memory) -> Iterator[Page]:
    """Yield the pages of all users, in the order of acceptance."""
    offset = 0
    while pages := pipeline.pages(offset=offset, limit=PAGES_AT_ONCE):
        yield from pages
        offset += len(pages)
