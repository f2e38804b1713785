"""What a server can do to a request, good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = [
    "Reply",
    "content",
    "empty",
    "hang",
    "huge",
    "invalid_utf8",
    "paced",
    "reset",
    "sensible",
    "slow",
    "stall",
    "status",
    "thinking",
    "truncated",
    "wrong_language",
    "wrong_types",
]


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request is answered.

    Attributes:
        latency_s: seconds before anything is sent, besides the script's own.
        status: HTTP status; from 400 on the body is an error's.
        headers: more HTTP headers.
        changed: what is made of the sensible content before it is sent; None leaves it.
        body: raw bytes instead of the whole body.
        pause_s: seconds before each event of a streamed answer.
        end: whether the answer comes to its end, the connection is reset half-way, nothing comes after half of it
            (stall), or nothing comes at all (hang).
    """

    latency_s: float = 0.0
    pause_s: float = 0.0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    changed: Callable[[str], str] | None = None
    body: bytes | None = None
    end: Literal["whole", "reset", "stall", "hang"] = "whole"


def sensible() -> Reply:
    """Answer as well as can be."""
    return Reply()


def slow(latency_s: float, reply: Reply | None = None) -> Reply:
    """Answer after so many seconds more."""
    return replace(reply or Reply(), latency_s=latency_s)


def hang() -> Reply:
    """Never answer."""
    return Reply(end="hang")


def reset(text: str | None = None) -> Reply:
    """Reset the connection in the midst of the answer, which is ``text`` where that is given."""
    return replace(sensible() if text is None else content(text), end="reset")


def stall(text: str | None = None) -> Reply:
    """Send the first half of the answer, which is ``text`` where that is given, and then nothing more."""
    return replace(sensible() if text is None else content(text), end="stall")


def paced(pause_s: float, reply: Reply | None = None) -> Reply:
    """Wait so many seconds before each event of a streamed answer."""
    return replace(reply or Reply(), pause_s=pause_s)


def status(code: int, *, retry_after: float | str | None = None) -> Reply:
    """Answer with an HTTP status, such as 429 or 500; ``retry_after`` is told in seconds, or as an HTTP date."""
    return Reply(status=code, headers={} if retry_after is None else {"Retry-After": str(retry_after)})


def content(text: str) -> Reply:
    """Answer with this text."""
    return Reply(changed=lambda _: text)


def empty() -> Reply:
    """Answer with no text."""
    return content("")


def truncated(share: float = 0.6) -> Reply:
    """Break the text off after a ``share`` of it."""
    return Reply(changed=lambda text: text[: int(len(text) * share)])


def thinking(thought: str = "Let me see.") -> Reply:
    """Put a reasoning model's thoughts before the text."""
    return Reply(changed=lambda text: f"<think>{thought}</think>\n{text}")


def wrong_types() -> Reply:
    """Answer by valid JSON with a number for every text and a text for everything else."""
    return Reply(changed=lambda text: json.dumps(_mapped(json.loads(text), _swapped)))


def wrong_language() -> Reply:
    """Answer by the sensible JSON, every text of it in Chinese."""
    return Reply(changed=lambda text: json.dumps(_mapped(json.loads(text), _chinese), ensure_ascii=False))


def huge(size: int = 10 << 20) -> Reply:
    """Answer with a text of so many characters."""
    return Reply(changed=lambda _: "x" * size)


def invalid_utf8() -> Reply:
    """Answer with bytes that are no UTF-8."""
    return Reply(body=b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "\xff\xfe\xc3("}}]}')


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, list) else change(value)


def _swapped(value: Any) -> Any:
    return 7 if isinstance(value, str) else "seven"


def _chinese(value: Any) -> Any:
    return (
        "用户谈到了他们的生活和计划，并且问了一些问题，助手回答了所有问题，还说了一些关于音乐和动物的事情。"
        if isinstance(value, str)
        else value
    )
