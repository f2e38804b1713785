"""The seam between memory and whoever writes answers: a finished list of chat messages goes in, text comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["EXTRACTIVE", "ChatMessage", "ChatModel", "Limits"]

EXTRACTIVE = "extractive"

ChatMessage = dict[str, str]  # {"role": "system", "user" or "assistant", "content": the text}


class Limits(NamedTuple):
    """What an answer may be.

    Attributes:
        temperature: 0 for the likeliest answer.
        max_tokens: the answer's, at most.
        stream: whether pieces are of use before the answer is whole.
    """

    temperature: float
    max_tokens: int
    stream: bool


# Returns the answer as text, or yields it in pieces. What it raises goes to whoever asked, and nothing is added.
ChatModel = Callable[[list[ChatMessage], Limits], str | Iterable[str]]
