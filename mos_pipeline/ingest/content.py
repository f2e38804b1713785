"""The content of a message, as services write it: a string, or a list of parts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mos_pipeline.ingest.records import Spot, named

__all__ = ["text_and_others"]

_KINDS = ("type", "content_type")


def text_and_others(content: Any, spot: Spot, name: str = "content") -> tuple[str, dict[str, int]]:
    """Return the text of ``content``, its text parts joined by line breaks, and how many other parts there are by kind.

    A part is a string, or an object with a ``type``; those with ``"type": "text"`` have their text in ``text``.

    Raises:
        RecordError: it is neither a string nor a list of such parts, nor null.
    """
    if content is None or isinstance(content, str):
        return content or "", {}
    if not isinstance(content, list):
        raise spot.error(f"must be a string or a list of parts, found {named(content)}", name)
    texts, others = list[str](), Counter[str]()
    for number, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = next((part[key] for key in _KINDS if isinstance(part.get(key), str)), "unnamed")
            if kind in {"text", "input_text", "output_text"} and isinstance(part.get("text"), str):
                texts.append(part["text"])
            else:
                others[kind[:64]] += 1
        else:
            raise spot.error(f"must be a string or an object, found {named(part)}", f"{name}, part {number}")
    return "\n".join(text for text in texts if text), dict(others)
