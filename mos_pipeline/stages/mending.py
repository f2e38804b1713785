"""JSON with the small faults that models make, read as it was meant. Pure.

Mended are: quotes of another kind, or not escaped within a text; line ends within a text; names without quotes; the
words of Python for true, false and null; commas too many, or missing at a line's end; comments. All else is refused.
It is read once from its beginning to its end, so the time is that of the text's length, whatever a model that has got
stuck repeats.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["NotMendedError", "mended_json"]

DEEPEST = 16  # levels; what is asked for has four

_QUOTES = {'"': '"', "'": "'", "“": "”"}
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}

_BETWEEN = re.compile(r"(?:\s+|//[^\n]*|#[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)*")
_WORD = re.compile(r"[-+.\w]+")
_NUMBER = re.compile(r"[-+]?\d{1,300}(?:\.\d{1,300})?(?:[eE][-+]?\d{1,3})?", re.ASCII)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_TEXT = {end: re.compile(rf"[^{end}\\]*(?:\\.[^{end}\\]*)*", re.DOTALL) for end in _QUOTES.values()}
# What follows a quote that ends a text, by where the text stands: any other quote is part of it.
_COMMENT = r"//|#|/\*"
_NEXT = {"value": r"[}\"'“]|\w+\s*:", "item": r"[\]\[{\"'“\w-]"}
_END = {"value": r"\}", "item": r"\]"}
_AFTER = {
    place: re.compile(rf"\s*(?:{_END[place]}|,\s*(?:{_NEXT[place]}|{_COMMENT})|{_COMMENT})|\s*?\n\s*[\"'“]")
    for place in _NEXT
} | {"name": re.compile(r"\s*:")}


class NotMendedError(ValueError):
    """A text can't be read as JSON, whatever is mended."""


def mended_json(text: str) -> Any:
    """Return the value that ``text`` begins with.

    Raises:
        NotMendedError: it can't be read.
    """
    return _Reader(text).value("value", 0)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value(self, place: str, depth: int) -> Any:
        """Return what stands here; ``place`` tells in what it stands, for ``_AFTER``."""
        first = self._next()
        if first in _QUOTES:
            return self._string(place)
        if first in ("{", "[") and depth == DEEPEST:
            raise NotMendedError
        if first == "{":
            return self._object(depth + 1)
        if first == "[":
            return self._array(depth + 1)
        word = self._word()
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.fullmatch(word) is None:
            raise NotMendedError
        return float(word) if {".", "e", "E"}.intersection(word) else int(word)

    def _object(self, depth: int) -> dict[str, Any]:
        self._at += 1
        found = dict[str, Any]()
        while (first := self._next()) != "}":
            if first == ",":
                self._at += 1
                continue
            name = self._string("name") if first in _QUOTES else self._word()
            if self._next() != ":":
                raise NotMendedError
            self._at += 1
            found[name] = self.value("value", depth)
        self._at += 1
        return found

    def _array(self, depth: int) -> list[Any]:
        self._at += 1
        found = list[Any]()
        while (first := self._next()) != "]":
            if first == ",":
                self._at += 1
            else:
                found.append(self.value("item", depth))
        self._at += 1
        return found

    def _next(self) -> str:
        """Pass over white space and comments; return the character there.

        Raises:
            NotMendedError: there is none.
        """
        between = _BETWEEN.match(self._text, self._at)
        self._at = self._at if between is None else between.end()
        if self._at == len(self._text):
            raise NotMendedError
        return self._text[self._at]

    def _word(self) -> str:
        found = _WORD.match(self._text, self._at)
        if found is None:
            raise NotMendedError
        self._at = found.end()
        return found.group()

    def _string(self, place: str) -> str:
        text, end = self._text, _QUOTES[self._text[self._at]]
        begin = self._at = self._at + 1
        while (part := _TEXT[end].match(text, self._at)) is not None and part.end() < len(text):
            at, self._at = part.end(), part.end() + 1
            if text[at] != end:
                break  # a backslash at the very end
            if _AFTER[place].match(text, self._at) is not None:
                return _unescaped(text[begin:at])
        raise NotMendedError


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPED.get(found[2], found[2]), text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # pairs become one character
