"""What ``respond`` and ``chat`` share: their options, and answering one question."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mos_pipeline.cli.opening import positive_int, positive_seconds
from mos_pipeline.cli.scope import assistant_of, scope_options
from mos_pipeline.cli.signals import Signals

if TYPE_CHECKING:
    from mos_pipeline.cli.opening import Memory
    from mos_pipeline.messages import Response

__all__ = ["answered", "answering_options"]

MODEL_LOADS_S = 60.0


def answering_options(parser: argparse.ArgumentParser) -> None:
    """Add whose memory it is, and how answers are to be made."""
    scope_options(parser, "who asks")
    parser.add_argument("--relationship", metavar="TEXT", default="friend", help="what the assistant is to the user")
    parser.add_argument("--style", metavar="TEXT", default="", help="how answers should be written")
    parser.add_argument("-k", metavar="N", type=positive_int, help="how many pages to look for (setting retrieval.k)")
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=positive_int,
        help="about how many tokens a prompt may take (setting response.prompt_tokens)",
    )
    parser.add_argument("--no-add", action="store_true", help="don't add exchanges to memory")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        default=MODEL_LOADS_S,
        help="seconds to wait for the embedding model; then pages are found by words alone (default: %(default)s)",
    )


def answered(
    memory: Memory,
    args: argparse.Namespace,
    signals: Signals,
    question: str,
    write: Callable[[str], None],
    metadata: dict[str, Any] | None = None,
) -> Response:
    """Answer a question; ``write`` is given the answer in pieces, as it comes.

    A signal that comes amid an answer ends it: what has been written by then is what is added.
    """
    options: dict[str, Any] = {
        "assistant_id": assistant_of(args),
        "metadata": metadata,
        "style_hint": args.style,
        "relationship": args.relationship,
        "max_tokens": args.max_tokens,
        "k": args.k,
        "timeout": args.timeout,
        "remember": not args.no_add,
    }
    with memory.respond_stream(args.user, question, **options) as stream:
        stream.guard = signals.held
        for piece in stream:
            write(piece)
    signals.check()  # one that came while the exchange was added
    if stream.response is None:
        raise RuntimeError("the answer ended without a response")
    return stream.response
