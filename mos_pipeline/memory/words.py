r"""From text to searchable words: split, folded, stemmed, hashed.

A word is a run of letters, digits and underscores (``\w+``); a Chinese or Japanese character is a word by itself, as
these scripts put no spaces between words. Words are normalised (NFKC), case-folded, cut to 64 characters, freed of
English stop words and stemmed (Snowball English, http://snowball.tartarus.org/algorithms/english/stemmer.html). A
text of stop words alone keeps them, unstemmed, so that it can be found as well.

A term's hash is the CRC-32 of its UTF-8: the same in every process and on every machine.

A page is found by more than its text: by the names of those who speak in it, and by the words of its date. Counts of a
page are in units of ``1 / UNIT`` word, since a long side's words count less than one each.
"""

from __future__ import annotations

import re
import threading
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cache, lru_cache
from typing import Any

import numpy as np
import Stemmer
from numpy.typing import NDArray

from mos_pipeline.memory.moments import moment
from mos_pipeline.messages import PageRecord

__all__ = ["UNIT", "WordCache", "analyse", "analyse_page", "analyser_id", "query_terms", "terms"]

MAX_TERM = 64
CACHED_WORDS = 1 << 15  # some 5 MB; a chat's vocabulary is smaller
CACHED_DAYS = 1 << 12
CACHED_NAMES = 1 << 8
MOST = 255  # a count that is larger counts as this
STOP = -1  # stands for a stop word where hashes stand for the others

_STOP_WORDS = (
    "a an the and or but if then than so as of at by for with about to from in on into over out up down off under "
    "i me my mine we us our ours you your yours he him his she her hers it its they them their theirs myself "
    "yourself himself herself itself themselves ourselves this that these those there here who whom whose which what "
    "when where why how am is are was were be been being do does did doing done have has had having will would shall "
    "should can could may might must not no nor too very just also only s t ll re ve m"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())

_UNSPACED = (
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_split_spaced = re.compile(r"\w+").findall
_split_unicode = re.compile(rf"[^\W{_UNSPACED}]+|(?=\w)[{_UNSPACED}]").findall
_find_foreign_letter = re.compile(r"[^\W\x00-\x7f]").search
_find_unspaced = re.compile(rf"[{_UNSPACED}]").search
# ASCII text, most of it, is split by a table instead: four times as fast as a regular expression.
_ASCII = bytes(ord(chr(i).lower()) if i < 128 and (chr(i).isalnum() or chr(i) == "_") else 32 for i in range(256))

UNIT = 8
SIDE_WORDS = 40  # a side of more words counts as so many, down to 1 / UNIT for each
SPEAKERS = "speakers"  # in a page's metadata: the names of the user's and the assistant's side
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_PROBE = (
    "Running generously skis, NEWS: happily communicated arguments; dying flies' universal evening in 2024 Größe 東京"
)
_PROBE_PAGE = PageRecord("", "", "Tea?", "Tea, yes.", "2024-05-01", {SPEAKERS: ["Ann", "Rob"]}, None, None)


class WordCache(dict[str, Any]):
    """Word to whatever ``compute`` makes of it; emptied when full. Long words are not kept."""

    def __init__(self, compute: Callable[[str], Any]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, word: str) -> Any:
        value = self._compute(word)
        if len(word) <= MAX_TERM:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = value
        return value


_stemmer = Stemmer.Stemmer("english", 0)  # which keeps no words by itself: _stems and _hashes do
_stemmer_lock = threading.Lock()  # the stemmer keeps the word it is at in itself


def _folded(word: str) -> str:
    return unicodedata.normalize("NFKC", word[:MAX_TERM]).casefold()[:MAX_TERM]


def _hash(term: str) -> int:
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


def _stem(word: str) -> str:
    """Return the word's stem, or an empty string for a stop word."""
    word = _folded(word)
    if word in STOP_WORDS:
        return ""
    with _stemmer_lock:
        stem: str = _stemmer.stemWord(word)
    return stem or word


def _stem_hash(word: str) -> int:
    stem = _stem(word)
    return _hash(stem) if stem else STOP


_stems = WordCache(_stem)
_hashes = WordCache(_stem_hash)


def _split(text: str) -> list[str]:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)  # an accent apart from its letter would split the word
        if _find_foreign_letter(text):
            return _split_unicode(text) if _find_unspaced(text) else _split_spaced(text)
    return text.encode("ascii", "replace").translate(_ASCII).decode("ascii").split()


def analyse(text: str) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return the distinct term hashes of ``text``, ascending, and how often each occurs (255 means 255 or more).

    Returns:
        hashes, shape (n,), uint32, and counts, shape (n,), uint8; both empty where the text holds no word.
    """
    return _columns(_counted(text))


def analyse_page(page: PageRecord) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return what a page is found by, in the form of ``analyse``, counts in units of 1 / UNIT.

    The words of both sides, of which a long one weighs each less: what a page is about stands in a short question
    rather than in the pages of its answer. The name of each side that says something, once for each. And, once each
    where the page does not hold them anyway, the words of its date: month, day, year and day of the week.
    """
    sides = [_content(side) for side in (page.user_input, page.agent_response)]
    if not any(sides):
        sides = [list(_counted(f"{page.user_input} {page.agent_response}").elements())]
    counter = dict[int, int]()
    for side in sides:
        weight = _weight(len(side))
        for term in side:
            counter[term] = counter.get(term, 0) + weight
    for term in _name_terms(" ".join(_speaking(page))):
        counter[term] = counter.get(term, 0) + UNIT
    for term in _date_terms(*_date(page.timestamp)):
        counter.setdefault(term, UNIT)
    return _columns(counter)


def _weight(words: int) -> int:
    """Return what each word of a side with so many counts, in units of 1 / UNIT."""
    return max(1, round(UNIT * min(1.0, SIDE_WORDS / max(words, 1))))


def _counted(text: str) -> Counter[int]:
    words = _split(text)
    counter = Counter(map(_hashes.__getitem__, words))
    if counter.pop(STOP, 0) and not counter:
        counter = Counter(map(_hash, map(_folded, words)))
    return counter


def _content(text: str) -> list[int]:
    return [term for term in map(_hashes.__getitem__, _split(text)) if term != STOP]


@lru_cache(maxsize=CACHED_NAMES)
def _name_terms(names: str) -> list[int]:
    """Return the terms of the names of those who speak in a page: mostly the same as in the page before."""
    return _content(names)


def _speaking(page: PageRecord) -> Iterator[str]:
    """Yield the names of the sides that are not empty, as far as the metadata tells them."""
    names = (page.metadata or {}).get(SPEAKERS)
    if isinstance(names, list | tuple):
        for name, said in zip(names, (page.user_input, page.agent_response), strict=False):
            if said and isinstance(name, str):
                yield name


def _date(timestamp: str) -> tuple[int, int, int]:
    """Return year, month and day; zeros where the text names no moment."""
    day = moment(timestamp)
    return (0, 0, 0) if day is None else (day.year, day.month, day.day)


@lru_cache(maxsize=CACHED_DAYS)
def _date_terms(year: int, month: int, day: int) -> list[int]:
    """Return the terms of a date, not by strftime, whose names follow the locale of the process."""
    if not year:
        return []
    words = _MONTHS[month - 1], str(day), str(year), _DAYS[date(year, month, day).weekday()]
    return _content(" ".join(words))


def _columns(counter: Mapping[int, int]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return terms, ascending, and counts; a page has so few of them that lists beat numpy's own sorting."""
    hashes = sorted(counter)
    counts = [counter[term] for term in hashes]
    if max(counts, default=0) > MOST:
        counts = [min(count, MOST) for count in counts]
    return np.frombuffer(array("I", hashes), np.uint32), np.frombuffer(bytearray(counts), np.uint8)


def terms(text: str) -> list[str]:
    """Return the stems of ``text`` in order, repetitions included: the readable side of ``analyse``."""
    words = _split(text)
    return [stem for stem in map(_stems.__getitem__, words) if stem] or [_folded(word) for word in words]


def query_terms(text: str) -> NDArray[np.uint32]:
    """Return the distinct term hashes of a query, shape (n,), uint32, ascending."""
    return analyse(text)[0]


@cache
def analyser_id() -> int:
    """Return a number that changes when the same page would give other hashes (another version of the stemmer).

    Hashes that were stored under another number can't be searched with this version's: make them again from the text.
    """
    page = (f"{part:x}" for column in analyse_page(_PROBE_PAGE) for part in column.tolist())
    return _hash(" ".join([*terms(_PROBE), *sorted(STOP_WORDS), *page]))
