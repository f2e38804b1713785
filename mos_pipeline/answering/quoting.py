"""The answer where no model writes one: the pages that tell most about the question, word for word. Pure."""

from __future__ import annotations

from mos_pipeline.answering.budget import clipped
from mos_pipeline.messages import QUOTES, Hit, Page, Retrieved

__all__ = ["quotes", "without_quotes"]

MOST = 3
SIDE_TOKENS = 100
NOTHING = "No model writes answers here (llm.provider is extractive), and memory holds nothing to be quoted yet."
INTRODUCTION = "No model writes answers here (llm.provider is extractive). Memory has this nearest to the question:"


def without_quotes(hits: list[Hit], k: int) -> list[Hit]:
    """Return the best ``k`` pages of those whose answers are more than quotes: asked twice, a question finds itself."""
    return [hit for hit in hits if not hit.page.metadata.get(QUOTES)][:k]


def quotes(found: Retrieved) -> str:
    """Return an answer that quotes the best pages, at most three, and says that it does so."""
    pages = [hit.page for hit in found.pages[:MOST]]
    return "\n\n".join([INTRODUCTION, *map(_quoted, pages)]) if pages else NOTHING


def _quoted(page: Page) -> str:
    sides = (("user", page.user_input), ("assistant", page.agent_response))
    said = [f"  {name}: {clipped(' '.join(text.split()), SIDE_TOKENS)}" for name, text in sides if text.strip()]
    return "\n".join([f"{page.timestamp or 'at some time'}:", *said])
