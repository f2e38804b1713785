"""Conversations with questions whose evidence is known: LoCoMo and BEAM, read for ``recall`` and ``tune``.

LoCoMo's pages are those of ``mos_pipeline.ingest``; a question's evidence are turns (``D1:3``), now and then two in one
string, or none that exists. BEAM (``[{"chat_id", "messages", "questions"}]``, gzipped or not) has messages of two
roles; a user's message begins a page, and a ``time_anchor`` (``March-15-2024``) begins a sitting at that date.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from mos_pipeline.errors import InputError
from mos_pipeline.ingest import read_source
from perf.texts import Page

__all__ = ["Conversation", "Question", "read_conversations"]

ADVERSARIAL = 5  # LoCoMo's category of questions without an answer
_CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
_TURN = re.compile(r"D\d+:\d+")
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()


class Question(NamedTuple):
    """A question with its evidence: places of pages in its conversation."""

    text: str
    category: str
    evidence: frozenset[int]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, to be one user's memory.

    Attributes:
        pages: arguments of ``MemoryPipeline.add``, in order.
        adversarial: how many questions were left out for having no answer.
        unresolved: how many were left out for naming no evidence that there is.
    """

    name: str
    pages: list[Page]
    questions: list[Question]
    adversarial: int
    unresolved: int


def read_conversations(path: Path, level: str = "page") -> list[Conversation]:
    """Return the conversations of a LoCoMo or BEAM file.

    Args:
        path: plain or gzipped JSON.
        level: ``page``, or ``turn``: each turn its own page, on its speaker's side.

    Raises:
        InputError: the file is of neither form.
    """
    raw = path.read_bytes()
    samples = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    if not isinstance(samples, list) or not samples or not isinstance(samples[0], dict):
        raise InputError(f"{path}: expected a JSON array of conversations")
    if "messages" in samples[0]:
        return [_beam(sample, level) for sample in samples]
    if "qa" in samples[0]:
        return _locomo(path, samples, level)
    raise InputError(f"{path}: neither LoCoMo (with qa) nor BEAM (with messages)")


def _locomo(path: Path, samples: Sequence[dict[str, Any]], level: str) -> list[Conversation]:
    pages: dict[str, list[Page]] = {sample["sample_id"]: [] for sample in samples}
    names = ("user_id", "user_input", "agent_response", "timestamp", "metadata")
    for record in read_source(path):
        page = {name: getattr(record, name) for name in names}
        pages[record.user_id].extend([page] if level == "page" else _turns(page, page["metadata"]["dia_ids"]))
    return [_locomo_conversation(sample, pages[sample["sample_id"]]) for sample in samples]


def _locomo_conversation(sample: dict[str, Any], pages: list[Page]) -> Conversation:
    places = {turn: place for place, page in enumerate(pages) for turn in page["metadata"]["dia_ids"]}
    asked = [entry for entry in sample["qa"] if entry["category"] != ADVERSARIAL]
    questions = [
        Question(
            entry["question"], _CATEGORIES[entry["category"]], _found(places, _TURN.findall(str(entry["evidence"])))
        )
        for entry in asked
    ]
    return _conversation(sample["sample_id"], pages, questions, len(sample["qa"]) - len(asked))


def _named(evidence: Iterable[str]) -> list[str]:
    return _TURN.findall(" ".join(evidence))


def _beam(sample: dict[str, Any], level: str) -> Conversation:
    pages = [part for page in _beam_pages(sample) for part in ([page] if level == "page" else _turns(page, _ids(page)))]
    places = {message: place for place, page in enumerate(pages) for message in _ids(page)}
    questions = [
        Question(entry["question"], entry["kind"], _found(places, entry["source_ids"])) for entry in sample["questions"]
    ]
    return _conversation(sample["chat_id"], pages, questions, 0)


def _ids(page: Page) -> list[Any]:
    ids: list[Any] = page["metadata"]["dia_ids"]
    return ids


def _beam_pages(sample: dict[str, Any]) -> Iterator[Page]:
    page: Page | None = None
    timestamp, sitting = None, 0
    for message in sample["messages"]:
        if message["time_anchor"]:
            timestamp, sitting = _anchored(message["time_anchor"]), sitting + 1
        if message["role"] == "user" or page is None:
            if page is not None:
                yield page
            page = {"user_id": sample["chat_id"], "user_input": "", "agent_response": "", "timestamp": timestamp}
            page["metadata"] = {"dia_ids": [], "session": sitting}
        side = "user_input" if message["role"] == "user" else "agent_response"
        page[side] = f"{page[side]}\n{message['content']}".lstrip()
        page["metadata"]["dia_ids"].append(message["id"])
    if page is not None:
        yield page


def _anchored(text: str) -> str:
    """Return ``March-15-2024`` as ``2024-03-15 00:00:00``; not by strptime, whose month names follow the locale."""
    month, day, year = text.split("-")
    return str(datetime(int(year), _MONTHS.index(month.lower()) + 1, int(day)))


def _turns(page: Page, ids: Sequence[Any]) -> Iterator[Page]:
    """Split a page of one or two turns."""
    sides = [side for side in ("user_input", "agent_response") if page[side] or len(ids) == 2]
    for side, turn in zip(sides, ids, strict=True):
        other = "agent_response" if side == "user_input" else "user_input"
        yield {**page, other: "", "metadata": {**page["metadata"], "dia_ids": [turn]}}


def _found(places: dict[Any, int], evidence: Iterable[Any]) -> frozenset[int]:
    return frozenset(places[turn] for turn in evidence if turn in places)


def _conversation(name: str, pages: list[Page], questions: list[Question], adversarial: int) -> Conversation:
    kept = [question for question in questions if question.evidence]
    return Conversation(name, pages, kept, adversarial, len(questions) - len(kept))
