"""Pages to measure with: from a file, or synthetic ones of the size of LoCoMo's.

A LoCoMo page has 50 words (270 characters) and, with its metadata, 380 bytes. The synthetic ones are drawn from
common words and from a few thousand compounds of them: a conversation stays with one topic's compounds for some pages,
so that there are topics to find and rare words to search for, and the words split into about as many word pieces as
real text does.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Page", "dataset_pages", "question", "synthetic_pages"]

Page = dict[str, Any]  # the arguments of ``MemoryPipeline.add``

_GLUE_WORDS = (
    "the to and you i a that it is of in my was for so we with on have but be this me your they just like about not "
    "what do are at really had can been all when how if some there would really them out her his from one get or "
    "which know think more good time will an as up could new our by because then too she he make has did love"
)
_CONTENT_WORDS = (
    "water garden river mountain house window table paper music guitar dance paint color picture camera story book "
    "letter school teacher lesson student friend family mother father sister brother child baby party summer winter "
    "spring autumn morning evening night weekend holiday travel train plane road bridge city village market shop "
    "kitchen dinner bread coffee apple orange honey sugar butter cheese chicken soup salad cake recipe cook farm field "
    "horse dog cat bird fish forest tree flower rose leaf seed stone sand beach island ocean wave storm rain snow wind "
    "cloud sky star moon sun light fire candle lamp door wall floor roof room bed chair clock phone radio screen game "
    "ball team coach race run swim climb walk hike camp tent boat bike car wheel engine tool hammer wood metal glass "
    "gold silver ring dress shirt shoe coat hat bag box gift card money bank office work job boss meeting project plan "
    "goal dream hope fear joy smile laugh tear heart hand eye face voice song poem film actor stage crowd street park "
    "lake hill valley path map guide ticket hotel doctor nurse clinic health sleep rest yoga run weight energy"
)
_GLUE = _GLUE_WORDS.split()
_CONTENT = _CONTENT_WORDS.split()
_COMPOUNDS = 4000
_TOPIC_WORDS = 24
_SPEAKERS = ["Anna", "Robert"]


def dataset_pages(path: Path) -> list[Page]:
    """Return the pages of a LoCoMo (or JSON Lines) file in its order.

    Raises:
        InputError: the file can't be read.
    """
    from mos_pipeline.ingest import read_source

    names = ("user_id", "user_input", "agent_response", "timestamp", "metadata")
    return [{name: getattr(record, name) for name in names} for record in read_source(path)]


def synthetic_pages(user: str = "user", seed: int = 1) -> Iterator[Page]:
    """Yield pages of ``user`` without end; the same ones for the same ``seed``."""
    chance = random.Random(seed)  # noqa: S311 (texts, no secrets)
    rare = _rare_words()
    for session in itertools.count(1):
        topic = chance.sample(rare, _TOPIC_WORDS)
        for turn in range(1, 2 * chance.randint(6, 18), 2):
            yield {
                "user_id": user,
                "user_input": _speech(chance, topic),
                "agent_response": _speech(chance, topic),
                "timestamp": f"2023-{1 + session // 28 % 12:02}-{1 + session % 28:02} 13:{turn:02}:00",
                "metadata": {
                    "dia_ids": [f"D{session}:{turn}", f"D{session}:{turn + 1}"],
                    "speakers": _SPEAKERS,
                    "session": session,
                },
            }


def question(page: Page, seed: int = 1) -> str:
    """Return eight words of ``page``, drawn by ``seed``, as a question."""
    words = page["user_input"].split() + page["agent_response"].split()
    chance = random.Random(seed)  # noqa: S311
    return " ".join(chance.choices(words, k=8)).replace(".", "") + "?"


def _rare_words() -> list[str]:
    pairs = list(itertools.product(_CONTENT, repeat=2))
    random.Random(0).shuffle(pairs)  # noqa: S311
    return [first + second for first, second in pairs[:_COMPOUNDS]]


def _speech(chance: random.Random, topic: list[str]) -> str:
    sentences = []
    for _ in range(chance.randint(1, 5)):
        size = chance.randint(4, 11)
        glue, content = size - size // 3, size // 3
        words = chance.choices(_GLUE, k=glue) + chance.choices(_CONTENT, k=content) + chance.choices(topic, k=1)
        chance.shuffle(words)
        sentences.append(" ".join(words).capitalize() + ".")
    return " ".join(sentences)
