"""An answer that comes as server-sent events, read as they come. Pure."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["StreamedAnswer"]

END = b"[DONE]"


class StreamedAnswer:
    """Takes the bytes of a streamed chat completion, split anywhere, and gives out the answer's text.

    Attributes:
        chars: of the text so far.
        over: whether the endpoint has said that this is all of the text.
        ended: whether nothing more comes.
        usage: what it tells of tokens; None where it does not.
        error: what it says went wrong amid the answer; empty where nothing did.
    """

    def __init__(self) -> None:
        self.chars = 0
        self.over = self.ended = False
        self.usage: Any = None
        self.error = ""
        self._held = b""  # the beginning of a line

    def feed(self, data: bytes) -> str:
        """Take what has come; return the text in it.

        Raises:
            ValueError: it is no such stream.
        """
        *lines, self._held = (self._held + data).split(b"\n")
        text = "".join(map(self._line, lines))
        self.chars += len(text)
        return text

    def _line(self, line: bytes) -> str:
        field, _, value = line.strip().partition(b":")
        value = value.strip()
        if field != b"data" or not value:  # a blank line, a comment, or a field that tells nothing of the answer
            if field.startswith((b"<", b"{")):
                raise ValueError("no line of a stream")
            return ""
        if value == END:
            self.over = self.ended = True
            return ""
        return self._event(value)

    def _event(self, value: bytes) -> str:
        try:
            event = json.loads(value)
            self.usage = event.get("usage") or self.usage
            if "error" in event:
                self.error = str(event["error"])
            choices = event.get("choices") or [{}]
            self.over = self.over or choices[0].get("finish_reason") is not None
            text = (choices[0].get("delta") or {}).get("content")
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"an event that is none of a chat's ({error!r:.100})") from None
        return text if isinstance(text, str) else ""
