"""Which pieces of memory a prompt has room for. Pure, and the same for the same pieces."""

from __future__ import annotations

from collections.abc import Sequence

from mos_pipeline.memory.selection import CHARS_A_TOKEN

__all__ = ["clipped", "kept"]

GAP = " […] "


def kept(costs: Sequence[int], budget: int) -> list[bool]:
    """Return which pieces are kept: the most important first, as long as they fit.

    One that doesn't fit is left out, and those after it are tried all the same, so nothing stays out for which there
    is room.

    Args:
        costs: of each piece, in tokens of at least 0, the most important piece first.
        budget: tokens; below 0 nothing is kept.
    """
    left, chosen = budget, list[bool]()
    for cost in costs:
        chosen.append(cost <= left)
        left -= cost if cost <= left else 0
    return chosen


def clipped(text: str, tokens: int) -> str:
    """Return ``text`` without its middle where it is estimated at more than ``tokens``, at least 4.

    Three quarters of what is left are its beginning: what a text is about stands at its ends.
    """
    room = tokens * CHARS_A_TOKEN
    if len(text) <= room:
        return text
    tail = (room - len(GAP)) // 4
    return f"{text[: room - len(GAP) - tail]}{GAP}{text[-tail:] if tail else ''}"
