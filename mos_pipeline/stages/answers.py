"""From what a model said to an answer that can be used, or what is wrong with it. Pure.

A model's text is never taken on trust: it is parsed, mended where the mending can't change what was meant, and checked
against what was asked for, page by page. What remains is cleaned and bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from mos_pipeline.stages.mending import NotMendedError, mended_json
from mos_pipeline.stages.scripts import strange_script
from mos_pipeline.stages.sentences import shorten
from mos_pipeline.stages.tasks import Continuity, Knowledge, PageFact, PageText, Previous, Topic

__all__ = [
    "KEYWORDS",
    "PROFILE_CHARS",
    "BreaksOffError",
    "Mended",
    "UnusableError",
    "parsed",
    "read_continues",
    "read_continuity",
    "read_knowledge",
    "read_overview",
    "read_profile",
    "read_topics",
]

OVERVIEW_CHARS = 600
THEME_CHARS = 120
CONTENT_CHARS = 1200
KEYWORD_CHARS = 60
KEYWORDS = 10
FACT_CHARS = 400
PROFILE_CHARS = 12_000
SHORTEST_PROFILE = 30  # below, there is nothing in it (MemoryOS's own)
MENDABLE_CHARS = 1 << 18  # mending takes about a microsecond a character, and nothing else goes on meanwhile

_TAG = re.compile(r"<(/?)think>", re.IGNORECASE | re.ASCII)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE | re.ASCII)
_FENCE = re.compile(r"\A```[a-zA-Z]*\s*|\s*```\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]+")
_NOTHING = {"", "none", "none.", "null", "n/a", "nothing"}


class UnusableError(Exception):
    """An answer can't be used; the text tells the model why."""


class BreaksOffError(UnusableError):
    """An answer has no end: it was longer than the model's, or the endpoint's, limit."""


class Mended:
    """Whether an answer had to be mended: set by whoever does so."""

    def __init__(self) -> None:
        self.yes = False


def parsed(text: str, mended: Mended) -> dict[str, Any]:
    """Return the JSON object in a model's text, the model's thoughts and what is around it left out.

    Raises:
        UnusableError: there is none, or not to its end.
    """
    try:
        return _object(json.loads(text))
    except (ValueError, RecursionError):
        pass
    objects = [text[begin:] for text in _outside_thoughts(text) if (begin := text.find("{")) >= 0]
    if not objects:
        raise UnusableError("there is no JSON object in it")
    for found in objects:
        try:
            return _object(json.JSONDecoder().raw_decode(found)[0])
        except (ValueError, RecursionError):
            continue
    text = _FENCE.sub("", objects[0])
    end = text.rfind("}") + 1
    text = text[:end]
    # Where the end is missing nobody knows what would have come: a profile cut in half is no profile.
    if not end or text.count("{") + text.count("[") != text.count("}") + text.count("]"):
        raise BreaksOffError("the JSON object breaks off before its end; be briefer")
    if end > MENDABLE_CHARS:
        raise UnusableError("it is no valid JSON, and very long")
    mended.yes = True
    return _object(_repaired(text))


def read_continuity(
    answer: dict[str, Any], pages: Sequence[PageText], previous: Previous | None, mended: Mended
) -> Continuity:
    """Return what the answer to ``prompts.ask_continuity`` tells.

    Chains that share pages are parted where the later one begins.

    Raises:
        UnusableError: it can't be used.
    """
    chains = sorted(
        (
            _number(_field(entry, "first"), len(pages)),
            _number(_field(entry, "last"), len(pages)),
            _text(entry, "overview", OVERVIEW_CHARS),
        )
        for entry in _list(answer, "chains")
    )
    missing = set(range(len(pages))).difference(*(range(first, last + 1) for first, last, _ in chains))
    if missing:
        raise UnusableError(f"these pages are in no chain: {sorted(missing)}")
    overviews = dict[int, str]()  # by a chain's first page
    for first, _, overview in chains:
        mended.yes |= first in overviews
        overviews.setdefault(first, overview)
    mended.yes |= sum(last + 1 - first for first, last, _ in chains) > len(pages)
    continues = [number not in overviews for number in range(len(pages))]
    continues[0] = _flag(answer, "continues_before") and previous is not None
    before = [previous.overview, *previous.page[:2]] if previous is not None else []
    _check_script(overviews.values(), pages, before)
    return Continuity(continues, _of_each_page(overviews, len(pages)))


def read_continues(answer: dict[str, Any]) -> bool:
    """Return what the answer to ``prompts.ask_continues`` tells; raise UnusableError where it can't be used."""
    return _flag(answer, "continues")


def read_overview(answer: dict[str, Any], page: PageText, overview: str) -> str:
    """Return what the answer to ``prompts.ask_overview`` tells; raise UnusableError where it can't be used."""
    text = _text(answer, "overview", OVERVIEW_CHARS)
    _check_script([text], [page], [overview])
    return text


def read_topics(answer: dict[str, Any], pages: Sequence[PageText], most: int, mended: Mended) -> list[Topic]:
    """Return what the answer to ``prompts.ask_topics`` tells; every page is in exactly one of the topics.

    A page that two topics name stays with the first; one that none names goes with its nearest neighbour.

    Raises:
        UnusableError: it can't be used.
    """
    home: dict[int, int] = {}
    topics = list[Topic]()
    for entry in _list(answer, "topics"):
        for number in _numbers(entry, "pages", len(pages)):
            mended.yes |= home.setdefault(number, len(topics)) != len(topics)
        content = _text(entry, "content", CONTENT_CHARS)
        topics.append(Topic(_text(entry, "theme", THEME_CHARS, empty=True), _keywords(entry), content, []))
    if not home:
        raise UnusableError("no topic has pages")
    if len(topics) > most:
        raise UnusableError(f"there are {len(topics)} topics, {most} are the most")
    for number in range(len(pages)):
        nearest = min(home, key=lambda other: (abs(other - number), other))
        mended.yes |= nearest != number
        topics[home[nearest]].pages.append(number)
    topics = [topic for topic in topics if topic.pages]
    _check_script((topic.content for topic in topics), pages)
    return topics


def read_profile(answer: dict[str, Any], profile: str, pages: Sequence[PageText]) -> str:
    """Return the profile that the answer to ``prompts.ask_profile`` tells, or the one before where it tells none.

    Raises:
        UnusableError: it can't be used.
    """
    told = _text(answer, "profile", PROFILE_CHARS, empty=True, lines=True)
    if told.lower() in _NOTHING or len(told) < SHORTEST_PROFILE:
        return profile
    _check_script([told], pages, [profile])
    return told


def read_knowledge(answer: dict[str, Any], pages: Sequence[PageText], most: tuple[int, int]) -> Knowledge:
    """Return what the answer to ``prompts.ask_knowledge`` tells, ``most`` facts of the user and of the assistant.

    Raises:
        UnusableError: it can't be used.
    """
    user, assistant = (
        _facts(answer, whose, len(pages))[:count] for whose, count in zip(("user", "assistant"), most, strict=True)
    )
    _check_script((fact.text for fact in [*user, *assistant]), pages)
    return Knowledge(user, assistant)


def _of_each_page(overviews: dict[int, str], count: int) -> list[str]:
    found, overview = list[str](), ""
    for number in range(count):
        overview = overviews.get(number, overview)
        found.append(overview)
    return found


def _outside_thoughts(text: str) -> list[str]:
    """Return where an answer may be, the likeliest first.

    That is outside of a reasoning model's thoughts; or behind the first of them, or all of the text, where none begin
    before the answer does: it may hold the tags, as pages may. Some servers leave out the tag that thoughts begin with.
    """
    tag = _TAG.search(text)
    if tag is None:
        return [text]
    unopened = bool(tag.group(1))
    found = [_THOUGHT.sub("", text[tag.end() :] if unopened else text)]
    closing = next((each for each in _TAG.finditer(text) if each.group(1)), None)
    if closing is not None and _answers_first(text[closing.end() :]):
        found.append(text[closing.end() :])
    if _answers_first(text):
        found.insert(len(found) if unopened else 0, text)
    return found


def _answers_first(text: str) -> bool:
    """Return whether an object begins before any thought begins or ends."""
    tag, brace = _TAG.search(text), text.find("{")
    return brace >= 0 and (tag is None or brace < tag.start())


def _repaired(text: str) -> Any:
    try:
        return mended_json(text)
    except NotMendedError:
        raise UnusableError("it is no valid JSON") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnusableError("it is no JSON object")
    return value


def _field(entry: Any, name: str) -> Any:
    if not isinstance(entry, dict):
        raise UnusableError(f"where an object with {name!r} should be, there is something else")
    if name not in entry:
        raise UnusableError(f"{name!r} is missing")
    return entry[name]


def _list(entry: Any, name: str) -> list[Any]:
    value = _field(entry, name)
    if not isinstance(value, list):
        raise UnusableError(f"{name!r} is no array")
    return value


def _flag(entry: Any, name: str) -> bool:
    value = _field(entry, name)
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise UnusableError(f"{name!r} is neither true nor false")
    return value


def _text(entry: Any, name: str, limit: int, *, empty: bool = False, lines: bool = False) -> str:
    value = _field(entry, name)
    if not isinstance(value, str):
        raise UnusableError(f"{name!r} is no text")
    text = _clean(value, lines=lines)
    if not text and not empty:
        raise UnusableError(f"{name!r} is empty")
    return shorten(text, limit)


def _clean(text: str, *, lines: bool = False) -> str:
    text = _CONTROL.sub(" ", text)
    return text.strip() if lines else " ".join(text.split())


def _keywords(entry: Any) -> list[str]:
    words = [_clean(word) for word in _list(entry, "keywords") if isinstance(word, str)]
    return [shorten(word, KEYWORD_CHARS) for word in dict.fromkeys(words) if word][:KEYWORDS]


def _page(entry: Any, count: int) -> int:
    return _number(_field(entry, "page"), count)


def _numbers(entry: Any, name: str, count: int) -> list[int]:
    return [_number(value, count) for value in _list(entry, name)]


def _number(value: Any, count: int) -> int:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if type(value) is not int or not 0 <= value < count:
        raise UnusableError(f"{value!r:.40} is no page's number; they go from 0 to {count - 1}")
    return value


def _facts(answer: dict[str, Any], whose: str, count: int) -> list[PageFact]:
    facts = dict[str, int]()
    for entry in _list(answer, whose):
        text = _text(entry, "fact", FACT_CHARS, empty=True)
        if text.lower() not in _NOTHING:
            facts.setdefault(text, _page(entry, count))
    return [PageFact(text, page) for text, page in facts.items()]


def _check_script(told: Iterable[str], pages: Sequence[PageText], more: Iterable[str] = ()) -> None:
    shown = chain(more, (side for page in pages for side in page[:2]))
    script = strange_script(told, shown)
    if script:
        raise UnusableError(f"it is written in {script.title()} letters; write in the language of the pages")
