"""Answers about parts of some pages, as one about all of them. Pure.

A part is given with the place at which its first page stands among all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mos_pipeline.stages.tasks import Knowledge, PageFact, Topic

__all__ = ["joined_facts", "joined_topics"]


def joined_topics(parts: Iterable[tuple[int, list[Topic]]]) -> list[Topic]:
    """Return the topics of all parts."""
    return [replace(topic, pages=[begin + page for page in topic.pages]) for begin, topics in parts for topic in topics]


def joined_facts(parts: Iterable[tuple[int, Knowledge]]) -> Knowledge:
    """Return the facts of all parts, each text once."""
    user, assistant = dict[str, int](), dict[str, int]()
    for begin, (of_user, of_assistant) in parts:
        for known, facts in ((user, of_user), (assistant, of_assistant)):
            for fact in facts:
                known.setdefault(fact.text, begin + fact.page)
    return Knowledge(*([PageFact(*fact) for fact in known.items()] for known in (user, assistant)))
