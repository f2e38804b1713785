"""What callers of the original hand in and a pipeline doesn't take, as it does take it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mos_pipeline.messages import encode

__all__ = ["stored_metadata"]


def stored_metadata(given: Any) -> Any:
    """Return metadata with text in place of what can't be stored, as of times and sets; None where they are empty.

    The original put everything into the prompt, as JSON or as Python shows it, and kept nothing. What is no mapping is
    returned as it is.
    """
    if not isinstance(given, Mapping):
        return given or None
    return {str(key): _stored(value) for key, value in given.items()} or None


def _stored(value: Any) -> Any:
    try:
        encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _as_json(value)
    return value


def _as_json(value: Any) -> Any:
    """Return a value with text in place of what JSON can't hold, or as text altogether."""
    try:
        found = json.loads(json.dumps(value, default=str))
        encode(found)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return str(value)
    return found
