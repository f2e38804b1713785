"""What memory holds, in the shapes of the original: plain dicts and lists."""

from __future__ import annotations

import re
import time
from typing import Any

from mos_pipeline.engine.details import FactDetail, PageDetail, SessionDetail
from mos_pipeline.messages import Page

__all__ = ["exchange", "fact", "page", "present_time", "session", "session_key", "shown_time"]

FORMAT = "%Y-%m-%d %H:%M:%S"
_ZONED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[+-]\d{4}")


def present_time() -> str:
    """Return the local time as the original wrote it."""
    return time.strftime(FORMAT)


def shown_time(timestamp: str) -> str:
    """Return a timestamp; one that the library made without its zone, as the original's were."""
    made = _ZONED.fullmatch(timestamp)
    return timestamp if made is None else made.group(1)


def exchange(page: Page) -> dict[str, Any]:
    """Return a page of short-term memory."""
    shown = {
        "user_input": page.user_input,
        "agent_response": page.agent_response,
        "timestamp": shown_time(page.timestamp),
    }
    return {**shown, "meta_data": dict(page.metadata)} if page.metadata else shown


def page(detail: PageDetail) -> dict[str, Any]:
    """Return a page of mid-term memory."""
    return {
        "page_id": detail.page.page_id,
        **exchange(detail.page),
        "preloaded": False,
        "analyzed": detail.analysed,
        "pre_page": detail.before,
        "next_page": detail.after,
        "meta_info": detail.overview or None,
        "page_embedding": detail.vector.astype("float32").tolist(),
        "page_keywords": detail.keywords,
    }


def session_key(session_id: int) -> str:
    """Return a session's id as text, as the original's were."""
    return f"session_{session_id}"


def session(detail: SessionDetail) -> dict[str, Any]:
    """Return a session."""
    return {
        "id": session_key(detail.session_id),
        "summary": detail.summary,
        "summary_keywords": detail.keywords,
        "summary_embedding": detail.vector.astype("float32").tolist(),
        "details": [page(one) for one in detail.pages],
        "L_interaction": detail.interactions,
        "R_recency": detail.recency,
        "N_visit": detail.visits,
        "H_segment": detail.heat,
        "timestamp": shown_time(detail.timestamp),
        "last_visit_time": time.strftime(FORMAT, time.localtime(detail.last_visit)),
        "access_count_lfu": detail.accesses,
    }


def fact(detail: FactDetail) -> dict[str, Any]:
    """Return a piece of knowledge."""
    return {
        "knowledge": detail.text,
        "timestamp": shown_time(detail.timestamp),
        "knowledge_embedding": detail.vector.astype("float32").tolist(),
    }
