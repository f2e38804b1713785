"""Which script a text is written in, to tell an answer in a strange language by its letters. Pure."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["strange_script"]

LETTERS = 2000  # of a text that are looked at
FEW = 20  # letters that tell no script
SHARE = 0.5  # of an answer's letters, from which on it is written in a script
TRACE = 0.02  # of the pages' letters, from which on a script is theirs, too


def strange_script(answer: Iterable[str], pages: Iterable[str]) -> str:
    """Return the script that most of the answer is written in where hardly any of the pages is; else an empty text."""
    told, asked = _scripts(answer), _scripts(pages)
    if told.total() < FEW or asked.total() < FEW:
        return ""
    script, count = told.most_common(1)[0]
    if count < SHARE * told.total() or asked[script] >= TRACE * asked.total():
        return ""
    return script


def _scripts(texts: Iterable[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    left = LETTERS
    for text in texts:
        letters = [char for char in text[:left] if char.isalpha()]
        found.update(map(_script, letters))
        left -= len(letters)
        if left <= 0:
            break
    return found


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    name = unicodedata.name(char, "UNKNOWN").split()[0].split("-")[0]
    return "CJK" if name in {"HIRAGANA", "KATAKANA", "HANGUL"} else name.removeprefix("FULLWIDTH")
