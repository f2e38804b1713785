"""Sentences of a chat, their telling words, and cutting text at a word: what extraction is made of.

Text is only text here: markup, JSON and instructions are split and counted like everything else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from mos_pipeline.memory.words import WordCache, terms

__all__ = ["Sentence", "central", "shorten", "split_sentences", "split_texts", "surfaces", "telling_stem"]

# A side of a page is cut to so many characters first: the time a page takes is bounded, and what a long text is about
# stands at its beginning.
MAX_SIDE_CHARS = 600
MAX_WORD_CHARS = 30  # longer "words" are encoded data
ELLIPSIS = "…"

# A sentence's end, perhaps a closing quote, and white space, unless it goes on in lower case; CJK ends need no space.
# One set of characters first: the engine then skips all others.
_END = re.compile(r"[.!?…。！？\n\r](?:(?<=[。！？\n\r])|[\"'”’)\]]?\s+(?![a-z\s]))")
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
# Scripts without spaces are read two characters at a time, which are words more often than not.
_WORD = re.compile(rf"[{_CJK}]{{1,2}}|[^\W_{_CJK}]+(?:['’][^\W_{_CJK}]+)*")

# ASCII text is split by a table instead: what is no letter, digit or apostrophe becomes a space.
_ASCII = bytes(i if chr(i).isascii() and (chr(i).isalnum() or i == ord("'")) else ord(" ") for i in range(256))

# Words that tell no topic; more than search leaves out, since few words are to stand for many.
_STOP_WORDS = """
    a about above absolutely actually after again ago ain't all almost already also always am amazing an and another
    any anymore anyone anything are aren't around as asked at aw away awesome back be because been before being
    believe best better between big bit both but by bye came can can't cannot check come coming cool could couldn't
    course day days definitely did didn't different do does doesn't doing don't done down during each either else end
    enough especially even ever every everyone everything exactly excited far feel feeling feels felt few find first
    for forward found from full fun gave get gets getting give giving glad go goes going gone gonna good got gotta
    great guess guy guys had hadn't haha happen happened happy hard has hasn't have haven't having he he'd he'll he's
    hear heard hello help her here here's hers herself hey hi him himself his hope hoping how how's however i i'd i'll
    i'm i've if image in into is isn't it it'd it'll it's its itself just keep kind knew know known last lately later
    least less let let's like likely little ll long look looked looking looks lot lots love loved made make makes
    making many may maybe me mean might mine more most much must my myself need needed needs never new next nice no
    nope nor not nothing now of off oh ok okay old on once one ones only or other others our ours ourselves out over
    own part people perhaps please pretty probably put quite rather re really recently right said same saw say saying
    says see seeing seem seems seen she she'd she'll she's should shouldn't since so some somehow someone something
    sometimes soon sorry sounds still stuff such super sure take taken takes taking talk tell than thank thanks that
    that'd that'll that's the their theirs them themselves then there there's these they they'd they'll they're
    they've thing things think thinking this those though thought through time times to today together told tomorrow
    tonight too took totally tried tries try trying two u under until up upon us use used ve very want wanted wants
    was wasn't way we we'd we'll we're we've week weeks well went were weren't what what's whatever when when's where
    where's whether which while who who's whoa whole whom whose why will with within without won't wonderful would
    wouldn't wow yea yeah year years yep yes yesterday yet you you'd you'll you're you've your yours yourself
    yourselves yup
"""
_STOP = frozenset(_STOP_WORDS.split())


class Sentence(NamedTuple):
    """A sentence as it was written.

    Attributes:
        text: without surrounding white space.
        words: its words in order.
        stems: for each word its stem, or "" where the word tells nothing (see ``telling_stem``).
        telling: its different stems without "".
    """

    text: str
    words: list[str]
    stems: list[str]
    telling: list[str]


def telling_stem(word: str) -> str:
    """Return the form under which ``word`` is counted; empty for stop words, numbers, single letters and data."""
    stem: str = _stems[word]
    return stem


def _telling_stem(word: str) -> str:
    lower = word.lower().replace("’", "'")
    bare = lower.removesuffix("'s").replace("'", "")
    if {lower, bare} & _STOP or bare.isdigit() or not 2 <= len(bare) <= MAX_WORD_CHARS:
        return ""
    return "".join(terms(bare))


_stems = WordCache(_telling_stem)


def split_sentences(text: str) -> list[Sentence]:
    """Return the sentences of the first ``MAX_SIDE_CHARS`` characters of ``text``, none of them empty."""
    head = text[:MAX_SIDE_CHARS]
    if not head.isascii():
        return [_sentence(part, _WORD.findall(part)) for part in split_texts(text)]
    words = head.encode("ascii").translate(_ASCII).decode("ascii")  # each stands where it stood
    return [_sentence(head[i:j].strip(), words[i:j].split()) for i, j in _spans(text)]


def split_texts(text: str) -> list[str]:
    """Return the same sentences as ``split_sentences``, without looking at their words."""
    head = text[:MAX_SIDE_CHARS]
    return [head[i:j].strip() for i, j in _spans(text)]


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where sentences begin and end, white space around them included."""
    head = text[:MAX_SIDE_CHARS]
    ends = [match.end() for match in _END.finditer(head)]
    spans = [(i, j) for i, j in zip([0, *ends], [*ends, len(head)], strict=True) if not head[i:j].isspace() and i < j]
    if len(text) > MAX_SIDE_CHARS and len(spans) > 1:
        spans.pop()  # the cut went through it
    return spans


def _sentence(text: str, words: list[str]) -> Sentence:
    stems = list(map(_stems.__getitem__, words))
    return Sentence(text, words, stems, list(dict.fromkeys(filter(None, stems))))  # a set's order changes between runs


def central(sentences: Iterable[Sentence], weights: Mapping[str, float]) -> list[Sentence]:
    """Return the sentences, each text once, by the mean weight of their telling stems, best first.

    The mean is damped (as if by four more words without weight), else the shortest sentence would win; ties stay in
    the order they came.
    """

    def score(sentence: Sentence) -> float:
        return sum(map(weights.__getitem__, sentence.telling)) / (len(sentence.telling) + 4)

    return sorted({sentence.text: sentence for sentence in sentences}.values(), key=score, reverse=True)


def surfaces(sentences: Iterable[Sentence], stems: Collection[str]) -> dict[str, str]:
    """Return for each of ``stems`` the word to show: as it is written most often, in lower case unless it is a name.

    A name is what has a capital more often than not where no sentence begins.
    """
    written: dict[str, Counter[str]] = {stem: Counter() for stem in stems}
    for sentence in sentences:
        for position, stem in enumerate(sentence.stems):
            if stem in written:
                word = sentence.words[position]
                capital = word[0].isupper() and (position > 0 or word[1:].isupper())
                written[stem][word if capital else word.lower()] += 1
    return {stem: _shown(forms) for stem, forms in written.items() if forms}


def _shown(forms: Counter[str]) -> str:
    word = max(forms, key=lambda form: (forms[form], form))
    return word.strip("'").removesuffix("'s").removesuffix("’s")


def shorten(text: str, limit: int) -> str:
    """Return ``text`` cut to ``limit`` characters at a word's end, with an ellipsis; inside a word that never ends."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    words = head.rsplit(None, 1)
    inside = not (head[-1:].isspace() or text[limit - 1].isspace())
    if inside and len(words) == 2 and len(words[1]) <= MAX_WORD_CHARS:
        head = words[0]
    return head.rstrip(" \t,;:-") + ELLIPSIS
