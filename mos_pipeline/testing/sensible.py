"""Answers to the library's prompts, made from the request's pages: valid, deterministic, and not at all clever."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from mos_pipeline.testing.script import Request

__all__ = ["sensible_content"]

TEXT_CHARS = 100
KEYWORDS = 5
LONG_WORD = 4

_WORD = re.compile(r"\w+")


def sensible_content(request: Request) -> str:
    """Return what a well-behaved model might answer; where nothing is known of the task, what was said last."""
    task = _TASKS.get(request.task)
    if task is not None:
        with contextlib.suppress(LookupError, TypeError, AttributeError):  # somebody else's JSON
            return json.dumps(task(request.asked), ensure_ascii=False)
    return f"You said: {request.messages[-1].get('content', '')}"


def _continuity(asked: dict[str, Any]) -> dict[str, Any]:
    chains = list[dict[str, Any]]()
    before, overview, goes_on = asked["before"], asked["overview_so_far"], False
    for page in asked["pages"]:
        continues = before is not None and bool(_words(page) & _words(before))
        overview = _overview(page, overview if continues else "")
        number, before = page["page"], page
        if continues and chains:
            chains[-1].update(last=number, overview=overview)
        else:
            goes_on |= continues
            chains.append({"first": number, "last": number, "overview": overview})
    return {"continues_before": goes_on, "chains": chains}


def _continues(asked: dict[str, Any]) -> dict[str, Any]:
    return {"continues": bool(_words(asked["pages"][0]) & _words(asked["before"]))}


def _chain_overview(asked: dict[str, Any]) -> dict[str, Any]:
    return {"overview": _overview(asked["pages"][0], asked["overview_so_far"])}


def _topics(asked: dict[str, Any]) -> dict[str, Any]:
    """Cut the pages into as many runs as there may be topics."""
    pages, most = asked["pages"], asked["most_topics"]
    cuts = [len(pages) * part // most for part in range(most + 1)]
    runs = [pages[begin:end] for begin, end in pairwise(cuts) if begin < end]
    return {"topics": [_topic(run) for run in runs]}


def _topic(pages: list[dict[str, Any]]) -> dict[str, Any]:
    words = sorted(set().union(*map(_words, pages)), key=lambda word: (-len(word), word))[:KEYWORDS]
    content = "They spoke of this: " + " / ".join(_said(page) for page in pages)
    numbers = [page["page"] for page in pages]
    return {"theme": " ".join(words[:2]), "keywords": words, "content": content, "pages": numbers}


def _profile(asked: dict[str, Any]) -> dict[str, Any]:
    lines = asked["profile"].splitlines() + [f"- interest in this: High, said {_said(page)}" for page in asked["pages"]]
    return {"profile": "\n".join(dict.fromkeys(lines)) or "None"}


def _knowledge(asked: dict[str, Any]) -> dict[str, Any]:
    sides = {"user": asked["most_user"], "assistant": asked["most_assistant"]}
    return {
        side: [
            {"fact": f"The {side} said: {page[side][:TEXT_CHARS]}", "page": page["page"]}
            for page in asked["pages"]
            if page[side].strip()
        ][:most]
        for side, most in sides.items()
    }


def _overview(page: dict[str, Any], so_far: str) -> str:
    return f"{so_far} Then: {_said(page)}"[-3 * TEXT_CHARS :].strip()


def _said(page: dict[str, Any]) -> str:
    return (page["user"].strip() or page["assistant"].strip() or "nothing")[:TEXT_CHARS]


def _words(page: dict[str, Any]) -> set[str]:
    text = f"{page['user']} {page['assistant']}".lower()
    return {word for word in _WORD.findall(text) if len(word) >= LONG_WORD}


_TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "continues": _continues,
    "continuity": _continuity,
    "knowledge": _knowledge,
    "overview": _chain_overview,
    "profile": _profile,
    "topics": _topics,
}
