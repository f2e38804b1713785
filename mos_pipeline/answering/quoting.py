"""The answer where no model writes one: the pages that tell most about the question, word for word. Pure."""

from __future__ import annotations

from mos_pipeline.answering.budget import clipped
from mos_pipeline.messages import QUOTES, Page, Retrieved

__all__ = ["quotes"]

MOST = 3
SIDE_TOKENS = 100
TIME_TOKENS = 16
NO_MODEL = "No model writes answers here (llm.provider is extractive)"
NEAREST = f"{NO_MODEL}. Memory has this nearest to the question:"
LATEST = f"{NO_MODEL}. Memory has nothing near the question yet. This was said last:"
NOTHING = f"{NO_MODEL}, and memory holds nothing to be quoted yet."


def quotes(found: Retrieved) -> str:
    """Return an answer that quotes at most three pages, and says that it does so.

    They are the best ones that were found; where none was, the latest ones, newest first: those may have no vector yet.
    """
    best = [hit.page for hit in found.pages[:MOST]]
    latest = [page for page in reversed(found.short_term) if not page.metadata.get(QUOTES)][:MOST]
    if not best and not latest:
        return NOTHING
    return "\n\n".join([NEAREST if best else LATEST, *map(_quoted, best or latest)])


def _quoted(page: Page) -> str:
    sides = (("user", page.user_input), ("assistant", page.agent_response))
    said = [f"  {name}: {clipped(' '.join(text.split()), SIDE_TOKENS)}" for name, text in sides if text.strip()]
    time = clipped(" ".join(page.timestamp.split()), TIME_TOKENS)  # which may be any text
    return "\n".join([f"{time or 'at some time'}:", *said])
