"""Facts and a profile out of first-person statements, word for word.

A profile is text of this form, one statement a line with the day it was made on, the oldest first under each heading:

    Is and has
    - I'm a single parent of two. (2023-05-08)
    Likes
    …
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import NamedTuple

from mos_pipeline.stages.statements import Statement, key_of, statements, telling
from mos_pipeline.stages.tasks import PageFact, PageText

__all__ = ["facts", "merged_profile"]

HEADINGS = {"is": "Is and has", "likes": "Likes", "done": "Has done", "plans": "Plans"}
_KINDS = {heading: kind for kind, heading in HEADINGS.items()}
NEW_SHARE = 4  # at most one in so many of a profile's lines is new each time
DAY_CHARS = 24

_LINE = re.compile(r"- (.+?)(?: \(([^()]*)\))?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class _Line(NamedTuple):
    statement: Statement
    day: str


def facts(sides: Iterable[str], limit: int) -> list[PageFact]:
    """Return the ``limit`` most telling statements of pages, given by one side of each, in the pages' order.

    Where two say the same, the later one stands.
    """
    different = {key_of(found): (found, page) for page, side in enumerate(sides) for found in statements(side)}
    best = nlargest(limit, different.values(), key=lambda entry: entry[0].weight)
    return [PageFact(found.text, page) for found, page in sorted(best, key=lambda entry: entry[1])]


def merged_profile(profile: str, pages: Sequence[PageText], limit: int) -> str:
    """Return a profile with the most telling statements of the users of ``pages``, at most ``limit`` lines of them.

    Of too many lines the newest half stay, and of the others the most telling. What the profile holds in another form
    stays above.
    """
    foreign, old = _parsed(profile)
    found = [_Line(statement, _day(page.timestamp)) for page in pages for statement in statements(page.user_input)]
    best = nlargest(max(1, limit // NEW_SHARE), _different(found), key=lambda line: line.statement.weight)
    chosen = [line for line in found if line in best]
    lines = sorted(_different([*old, *chosen]), key=lambda line: line.day)
    return _rendered(foreign, _fitting(lines, limit))


def _different(lines: Iterable[_Line]) -> list[_Line]:
    """Return the lines without those that a later one repeats."""
    return list({key_of(line.statement): line for line in lines}.values())


def _fitting(lines: list[_Line], limit: int) -> list[_Line]:
    if len(lines) <= limit:
        return lines
    newest = lines[len(lines) - (limit + 1) // 2 :]
    older = lines[: len(lines) - len(newest)]
    best = nlargest(limit - len(newest), older, key=lambda line: line.statement.weight)
    return [*(line for line in older if line in best), *newest]


def _parsed(profile: str) -> tuple[list[str], list[_Line]]:
    """Return the lines that are no statements, and those that are, kind by kind."""
    foreign, lines, kind = list[str](), list[_Line](), ""
    for text in filter(None, map(str.strip, profile.splitlines())):
        line = _LINE.fullmatch(text)
        if text in _KINDS:
            kind = _KINDS[text]
        elif kind and line:
            lines.append(_Line(Statement(line[1], kind, telling(line[1], kind)), line[2] or ""))
        else:
            foreign.append(text)
    return foreign, lines


def _rendered(foreign: list[str], lines: list[_Line]) -> str:
    shown = list(foreign)
    for kind, heading in HEADINGS.items():
        mine = [line for line in lines if line.statement.kind == kind]
        shown += [heading] * bool(mine)
        shown += [f"- {statement.text} ({day})" if day else f"- {statement.text}" for statement, day in mine]
    return "\n".join(shown)


def _day(timestamp: str) -> str:
    found = _DAY.search(timestamp)
    return found[0] if found else re.sub(r"[()\s]+", " ", timestamp).strip()[:DAY_CHARS]
