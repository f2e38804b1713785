"""First-person statements: which of somebody's sentences say something lasting of that person, told by plain cues.

A sentence counts where a clause of it begins with "I", "we" or "my" and one of the cues below: what the speaker is or
has, likes, has done or plans. Left out are questions, whatever is said to the other ("you", "let's"), what is only
supposed ("if", "would", "might"), moods and reactions ("I'm glad", "I think"), quotations, and sentences that say too
little by themselves. English only; sentences of other languages make no statements.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from mos_pipeline.stages.sentences import MAX_SIDE_CHARS, split_texts, telling_stem

__all__ = ["KINDS", "Statement", "key_of", "statements", "telling"]

KINDS = ("is", "likes", "done", "plans")

MIN_CHARS, MAX_CHARS = 10, 240
SIDES = 256  # whose statements are kept: profile and knowledge ask for those of the same pages
MAX_BEFORE = 12  # characters before a clause's beginning that are looked at; the longest word there is "wednesday"

_ADVERBS = (
    r"(?:(?:just|also|really|recently|finally|actually|always|even|still|now|already|currently|usually|often|sometimes|"
    r"absolutely|definitely|both|all|once|first|originally|mostly|mainly)\s+){0,2}"
)
_IRREGULAR = (
    "began|bought|brought|broke|built|came|caught|chose|drew|drove|fell|flew|found|gave|got|grew|had|held|hurt|led|lost|"
    "made|met|moved|put|quit|ran|read|rode|sang|saw|set|sold|spent|swam|taught|threw|took|went|won|wore|wrote"
)
_NOT_DONE = (  # verbs in -ed that tell of a mood or of the talk itself
    "agreed|appreciated|asked|assumed|chatted|enjoyed|figured|guessed|hoped|liked|loved|mentioned|missed|need|needed|"
    "noticed|promised|realized|remembered|talked|thanked|wanted|wished|wondered|indeed|tired|excited|supposed"
)
_PARTICIPLES = (
    "been|begun|built|come|done|found|given|gone|grown|had|known|lost|made|met|read|seen|taken|taught|won|written"
)
_MOODS = (
    "aiming|asking|being|coming|counting|dying|feeling|gaining|getting|going|guessing|having|hearing|heading|hoping|"
    "keeping|kidding|killing|leaving|living|looking|loving|pushing|rooting|saying|seeing|sending|staying|talking|telling|"
    "thinking|trying|waiting|wishing|wondering"
)
_COUNTS = "two|three|four|five|six|seven|eight|nine|ten"
_NUMBER = rf"(?:an?|my|one|{_COUNTS}|some|several|many|\d+)"
_STATES = (
    "allergic|bilingual|bisexual|blind|catholic|celiac|christian|deaf|diabetic|disabled|divorced|engaged|gay|hindu|jewish|"
    "lactose|lesbian|married|muslim|pregnant|retired|single|trans|transgender|vegan|vegetarian|widowed"
)
_NOUNS = r"(?:(?!(?:and|or|to|with|on|in|for|of|that|who|as|than|i|is|are|has)\b)[\w'-]+\s+)"

_TALK = (
    r"(?:(?:hear|see|know|learn|chat|talk|join|help|check|try|catch|go|come|ask|say|tell|thank|make\s+(?:it|sure)|"
    r"ensure|find|calculate|compute|determine|understand|visuali[sz]e)\b)"
)
_REACTION = r"(?:(?:of\s+)?(?:it|this|that|those|them|how|when|what|the\s+way|seeing|hearing)\b)"
_PASSING = r"(?:(?:quick\s+)?(?:question|idea|feeling|thought|blast|point|great\s+time|good\s+time)\b)"

# What follows "I" or "we".
_PLANS = rf"""
    '(?:m|re)\s+{_ADVERBS}(?:going\s+to|gonna|planning|about\s+to|off\s+to|saving|hoping\s+to|looking\s+for\s+an?|
        looking\s+forward\s+to|thinking\s+(?:of|about)\s+\w+ing)\b
  | '(?:ll|d)\s+(?:be\s+\w+ing\b|(?:love|like)\s+to\s+(?!{_TALK}))
  | \s+{_ADVERBS}(?:plan|hope|intend|want|aim|will)\s+(?:on|to|be)\s+(?!{_TALK})
"""
_LIKES = rf"""
    \s+{_ADVERBS}(?:love|like|enjoy|prefer|hate|dislike|adore|can't\s+stand|collect|listen\s+to|play)\s+(?!{_REACTION})
  | '(?:m|re)\s+{_ADVERBS}(?:an?\s+(?:big\s+|huge\s+)?fan|into|fond|passionate|interested|obsessed)\s+(?!{_REACTION})
  | 've\s+always\s+(?:loved|liked|enjoyed|been\s+(?:into|passionate|interested|a\s+fan))\b
"""
_IS = rf"""
    (?:'(?:m|re)|\s+(?:am|are))\s+{_ADVERBS}(?:(?:an?|the|from|in|at|part|living|(?i:{_STATES}))\b|
        (?!(?:{_MOODS})\b)\w+ing\b)
  | \s+{_ADVERBS}(?:live|work|study|teach|come\s+from|own|run|speak|volunteer|belong)\b
  | (?:'ve\s+got|\s+{_ADVERBS}have)\s+{_NUMBER}\s+(?!{_PASSING})
"""
_DONE = rf"""
    (?:'ve|\s+have)\s+{_ADVERBS}(?:(?:{_PARTICIPLES})\b|(?!(?:{_NOT_DONE})\b)\w{{2,}}ed\b)
  | \s+{_ADVERBS}(?!had\s+to\b|(?:had|got|saw)\s+(?:it|that|this|an?\s+{_PASSING})\b)
        (?:(?:{_IRREGULAR}|used\s+to|was\s+(?:born|raised|diagnosed|hired|chosen|elected|in|at))\b|
        (?!(?:{_NOT_DONE})\b)\w{{2,}}ed\b)
"""
# One search. It begins with a set of letters because the engine then skips what can't begin a match; of the kinds, the
# first that fits wins.
_CUE = re.compile(
    rf"""[IWwMm](?<!\w.)(?:
    (?:(?<=I)|(?<=[Ww])e)(?:(?P<plans>{_PLANS})|(?P<likes>{_LIKES})|(?P<is>{_IS})|(?P<done>{_DONE}))
  | (?<=[Mm])y\s+(?:
        (?P<my_likes>(?:\w+\s+)?favou?rite\b)
      | (?P<my_plans>(?:\w+\s+)?(?:goal|dream|plan)s?\s+(?:is|are)\b)
      | (?P<my_is>{_NOUNS}{{1,3}}(?:is|are|has|have|works|lives)\b)
      | (?P<my_done>{_NOUNS}{{1,2}}(?:{_IRREGULAR}|died|passed|(?!(?:{_NOT_DONE})\b)\w{{2,}}ed)\b)
    ))""",
    re.VERBOSE,
)
# What may stand before a clause's beginning. "The photo I took" and "how I moved" are parts of something else.
_CLAUSE = re.compile(
    r"""(?:^|[,;:.!–—(-]|\b(?:
    and|but|so|or|then|plus|because|'?cause|cuz|since|while|though|although|also|currently|lately|recently|now|ago|
    (?:day|night|morning|afternoon|evening|week|weekend|month|year|time)s?|yesterday|tomorrow|today|tonight|
    (?:mon|tues?|wednes|thurs?|fri|satur|sun)(?:day)?|spring|summer|autumn|fall|winter|(?:19|20)\d\d|january|
    february|march|april|may|june|july|august|september|october|november|december
    ))\s*$""",
    re.IGNORECASE | re.VERBOSE,
)
_OTHERS = """
    you your yours yourself you're you've you'll you'd y'all let's thank thanks if whether would wouldn't could couldn't
    should shouldn't might maybe perhaps wish imagine suppose conversation ai
"""
_NOT_OF_ONESELF = frozenset(_OTHERS.split())
_OPENING = re.compile(
    r"(?:(?:yeah|yep|yup|yes|no|nope|oh|wow|hey|hi|hello|well|haha|aw+|ok|okay|sure|absolutely|definitely|totally|right|"
    r"actually|btw|by the way|and|but|so|also|anyway|speaking of which)\b(?:[ ,]+[A-Z]\w+(?=[,!]))?[\s,!.:–—-]+)+",
    re.IGNORECASE,
)
_POINTING = "it this that they them these those there one ones he she him her"
_ADDRESSED = re.compile(r",\s+[A-Z]\w+[.!]*$")  # "…, Anna!"
_VAGUE = frozenset(_POINTING.split())
# Words that stand where something could be told, and tell little.
_FEELINGS = """
    blast challenge challenging dedication determined determination difference dream dreams effort energy excited
    exciting experience fan focus focused fulfilling fun goal goals growth growing hard huge impact important incredible
    inspired inspiring inspiration invaluable journey joy learn learning life moment moments motivated motivation
    passion passionate path photo pic picture positive powerful progress process proud push rewarding special stay
    strength strong success super tough ups downs vision world worth
"""
_SOFT = frozenset(_FEELINGS.split())
_SAYS_ENOUGH = frozenset(_STATES.split("|"))
_NUMBERS = frozenset(_COUNTS.split("|"))
_WORD = re.compile(r"[\w']+")
_KIND_WEIGHT = {"is": 1.5, "likes": 1.0, "done": 0.8, "plans": 1.0}


class Statement(NamedTuple):
    """A sentence, or its end from where it begins to tell.

    Attributes:
        text: as it was written.
        kind: one of ``KINDS``: what the speaker is or has, likes, has done, plans.
        weight: how telling it is, higher is more.
    """

    text: str
    kind: str
    weight: float


def statements(side: str) -> list[Statement]:
    """Return the first-person statements of one side of a page, in order."""
    return list(_statements(side))


@lru_cache(maxsize=SIDES)
def _statements(side: str) -> tuple[Statement, ...]:
    head = side.partition("(image:")[0].replace("’", "'")
    if not _CUE.search(head, 0, MAX_SIDE_CHARS):  # most sides end here, at a third of the cost
        return ()
    return tuple(found for text in split_texts(head) if (found := _statement(text)) is not None)


def _statement(text: str) -> Statement | None:
    kind = _kind(text)
    if not kind or any(mark in text for mark in ("?", '"', "“", "can't wait")) or text.endswith(":"):
        return None
    if not _NOT_OF_ONESELF.isdisjoint(_WORD.findall(text.lower())):
        return None
    opening = _OPENING.match(text)
    if opening and text[opening.end() :][:1].isupper():
        text = text[opening.end() :]
    weight = telling(text, kind) if MIN_CHARS <= len(text) <= MAX_CHARS else 0.0
    return Statement(text, kind, weight) if weight > 0 else None


def _kind(text: str) -> str:
    """Return the kind of the first cue with which a clause begins, or an empty string."""
    for cue in _CUE.finditer(text):
        start = cue.start()
        if _CLAUSE.search(text, max(0, start - MAX_BEFORE), start):
            return (cue.lastgroup or "").removeprefix("my_")
    return ""


def telling(text: str, kind: str) -> float:
    """Return how much a statement of one of ``KINDS`` tells: by its names, numbers and words, less for "it" and "that".

    0 where its words tell too little: one must for what somebody likes or a word like "vegan", two for all else.
    """
    words = _WORD.findall(text)
    lower = [word.lower() for word in words]
    own = sum(1 for word in lower if word not in _SOFT and telling_stem(word))
    names = sum(1 for word in words[1:] if word[0].isupper() and word[:2] not in ("I", "I'"))
    names -= bool(_ADDRESSED.search(text))
    numbers = sum(1 for word in lower if word[0].isdigit() or word in _NUMBERS)
    enough = 1 if kind == "likes" or not _SAYS_ENOUGH.isdisjoint(lower) else 2
    if own + names + numbers < enough:
        return 0.0
    vague = sum(1 for word in lower if word in _VAGUE)
    worth = _KIND_WEIGHT[kind] + 0.25 * min(own, 7) + 0.5 * min(names, 3) + 0.3 * min(numbers, 2) - 0.5 * vague
    return max(worth, 0.1)


def key_of(statement: Statement) -> tuple[str, frozenset[str]]:
    """Return what equal statements have in common: their kind and their telling words, in any form and order."""
    return statement.kind, frozenset(filter(None, map(telling_stem, _WORD.findall(statement.text))))
