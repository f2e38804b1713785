"""Which page continues which, as far as both are there, and what the chains are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mos_pipeline.legacy.model import LegacyPage, Problem

__all__ = ["Links", "links_of"]


class Links(NamedTuple):
    """Links as (earlier, later), overviews as (page, text), one a chain; both by the pages' keys.

    Attributes:
        loose: how many links lead to pages that are not there any more.
    """

    links: tuple[tuple[str, str], ...]
    overviews: tuple[tuple[str, str], ...]
    loose: int


def links_of(pages: Sequence[tuple[str, LegacyPage]], problems: list[Problem]) -> Links:
    """Return the links between pages, given with their keys in their order.

    A page continues at most one page, which comes before it, and is continued by at most one.
    """
    places = {key: at for at, (key, _) in enumerate(pages)}
    before, after, loose = dict[int, int](), dict[int, int](), set[tuple[str, str]]()
    for earlier, later, page, field in _wanted(pages):
        if earlier not in places or later not in places:
            loose.add((earlier, later))
            continue
        one, other = places[earlier], places[later]
        if before.get(other) == one:
            continue
        if one >= other or one in after or other in before:
            file, where = page.place
            problems.append(Problem(file, f"{where}.{field}", "links pages that have other neighbours, or in a circle"))
            continue
        before[other], after[one] = one, other
    links = tuple((pages[one][0], pages[other][0]) for other, one in sorted(before.items()))
    return Links(links, tuple(_overviews(pages, before, after)), len(loose))


def _wanted(pages: Sequence[tuple[str, LegacyPage]]) -> list[tuple[str, str, LegacyPage, str]]:
    wanted = []
    for key, page in pages:
        if page.before:
            wanted.append((page.before, key, page, "pre_page"))
        if page.after:
            wanted.append((key, page.after, page, "next_page"))
    return wanted


def _overviews(
    pages: Sequence[tuple[str, LegacyPage]], before: dict[int, int], after: dict[int, int]
) -> list[tuple[str, str]]:
    """Return each chain's overview: that of its last page which has one."""
    found = []
    for first in range(len(pages)):
        if first in before:
            continue
        told, at = None, first
        while True:
            key, page = pages[at]
            told = (key, page.overview) if page.overview else told
            if at not in after:
                break
            at = after[at]
        if told is not None:
            found.append(told)
    return found
