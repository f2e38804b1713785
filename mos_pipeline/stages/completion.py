"""A conversation to be answered, and what an endpoint's answer tells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["CHARS_OF_TOKEN", "Chat", "Completion", "about_tokens", "read_completion", "streamed_completion"]

CHARS_OF_TOKEN = 4
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


def about_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """Return about how many tokens a prompt has."""
    return sum(len(message["content"]) for message in messages) // CHARS_OF_TOKEN


class Chat(NamedTuple):
    """A conversation to be answered, freely and not as JSON.

    Attributes:
        max_tokens: of the answer.
        stream: whether its pieces are wanted as they come.
    """

    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int
    stream: bool

    @property
    def tokens(self) -> int:
        """About how many tokens the prompt has."""
        return about_tokens(self.messages)


class Completion(NamedTuple):
    """An answer.

    Attributes:
        whole: whether it is all there; False where the model had to stop, or the answer was cut off for its length.
    """

    text: str
    whole: bool
    tokens_in: int
    tokens_out: int


def read_completion(body: bytes, tokens: int) -> Completion:
    """Return the answer in a response's body; where it doesn't tell, the prompt had ``tokens``.

    Raises:
        ValueError: it is none.
    """
    try:
        answer = json.loads(body.decode())
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except UNREADABLE as error:
        raise ValueError(f"no chat completion: {error!r:.100}") from None
    text = text if isinstance(text, str) else ""
    return _counted(text, reason != "length", answer.get("usage"), tokens, len(text))


def streamed_completion(usage: Any, tokens: int, chars: int) -> Completion:
    """Return what there is to be told of an answer of so many ``chars`` whose text was handed out."""
    return _counted("", True, usage, tokens, chars)


def _counted(text: str, whole: bool, usage: Any, tokens: int, chars: int) -> Completion:
    told = _count(usage, "prompt_tokens", tokens), _count(usage, "completion_tokens", chars // CHARS_OF_TOKEN)
    return Completion(text, whole, *told)


def _count(usage: Any, name: str, instead: int) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < 1 << 32 else instead
