"""What a reasoning model thinks aloud between ``<think>`` and ``</think>`` is no part of its answer. Pure."""

from __future__ import annotations

import re

__all__ = ["ThoughtFilter", "without_thoughts"]

_TAG = re.compile(r"<(/?)think>", re.IGNORECASE | re.ASCII)
_END = re.compile(r"</think>", re.IGNORECASE | re.ASCII)
OPENING, CLOSING = "<think>", "</think>"


def without_thoughts(text: str) -> str:
    """Return a whole answer without thoughts, nor white space around what is left.

    A thought that doesn't end goes on to the end of the text. Some servers leave out the tag that a thought begins
    with: where the first tag is a closing one, everything before it is a thought.
    """
    first = _TAG.search(text)
    if first is not None and first.group(1):
        text = text[first.end() :]
    pieces = ThoughtFilter()
    return pieces.feed(text) + pieces.end()


class ThoughtFilter:
    """Takes an answer piece by piece, split anywhere, and gives out what is no thought as soon as that is certain.

    The pieces given out make the text that ``without_thoughts`` returns of the whole; but where a thought lacks its
    opening tag, it has been given out when the closing one comes, which alone is left out then.
    """

    def __init__(self) -> None:
        self._held = ""  # what may be the beginning of a tag
        self._space = ""  # white space that counts only where something follows it
        self._thinking = False
        self._begun = False

    def feed(self, piece: str) -> str:
        """Take a piece; return what can be given out, which may be nothing."""
        text, told = self._held + piece, list[str]()
        at = 0
        while (tag := (_END if self._thinking else _TAG).search(text, at)) is not None:
            if not self._thinking:
                told.append(text[at : tag.start()])
                self._thinking = not tag.group(1)
            else:
                self._thinking = False
            at = tag.end()
        held = _tag_begins(text, at, self._thinking)
        if not self._thinking:
            told.append(text[at:held])
        self._held = text[held:]
        return self._trimmed("".join(told))

    def end(self) -> str:
        """Return what was held back and is no tag after all."""
        held, self._held = self._held, ""
        return "" if self._thinking else self._trimmed(held)

    def _trimmed(self, text: str) -> str:
        """Leave out white space before the first word, and hold it back behind the last one."""
        if not self._begun:
            text = text.lstrip()
        if not text:
            return ""
        words = text.rstrip()
        if not words:
            self._space += text
            return ""
        told, self._space, self._begun = self._space + words, text[len(words) :], True
        return told


def _tag_begins(text: str, at: int, thinking: bool) -> int:
    """Return where, from ``at`` on, what may be the beginning of a tag stands at the end of ``text``; else its end."""
    start = text.rfind("<", max(at, len(text) - len(CLOSING) + 1))
    if start < 0:
        return len(text)
    end = text[start:].lower()
    tags = (CLOSING,) if thinking else (OPENING, CLOSING)
    return start if any(tag.startswith(end) for tag in tags) else len(text)
