"""The LLM pool's process: what is asked about pages, and the stage that answers it without an endpoint.

With an endpoint it is the stage of ``stages/calls.py``, for the same units.

A provider answers four tasks: continuity and topics, of every batch of pages of one (user, assistant); profile and
knowledge, of pages of sessions that have become hot. Those of the same pages are independent of one another, and come
as one unit, so that the pages cross over and are read once; they come oldest first:

    batch      payload {"pages": [[user_input, agent_response, timestamp], …], "vectors": bytes, "dimension": d,
                        "previous": None or {"page": [...], "vector": bytes, "overview": str},
                        "homeless": [index, …]}: the pages that topics are wanted of
               result  {"continues": [bool, …], "overviews": [str, …],
                        "topics": [{"theme": str, "keywords": [str, …], "content": str, "pages": [index, …]}, …],
                        "owed": [task, …]},
                       a topic's pages being indices into ``homeless``
    promotion  payload {"profile": str, "pages": …}
               result  {"profile": str: the whole profile of the user, with what the pages add to it,
                        "user": [{"text": str, "page": index}, …], "assistant": [{"text": str, "page": index}, …],
                        "owed": [task, …]}

    chat       of an endpoint alone, and urgent, since somebody waits for the answer
               payload {"messages": [{"role": str, "content": str}, …], "temperature": float, "max_tokens": int,
                        "stream": bool, "until": monotonic seconds}
               pieces  str, each a part of the answer as it comes, where "stream" is true
               result  {"text": str: the answer, or what of it was not in the pieces}
                       or {"error": str, "late": bool: whether time was over}

Owed are those of the unit's tasks that a model could not answer, so that the extractive answer stands in for its own.
They may be asked for again, of a model alone, where nothing shall stand in:

    batch again, promotion again
               payload as above, with "tasks": [task, …] that are wanted
               result  {task: what the result above has of it, …, "unusable": [task, …]}: those that were answered, and
                       those to which the endpoint gave no answer that can be used; the others it did not answer at all

Of continuity that is {"continues", "overviews"}, of knowledge {"user", "assistant"}.

Vectors are float16 bytes, row-major, (n, d), in the order of the pages.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from mos_pipeline import config
from mos_pipeline.runtime.worker import Report

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "CHAT",
    "Batch",
    "BatchAsked",
    "Continuity",
    "Knowledge",
    "PageFact",
    "PageText",
    "Previous",
    "Provider",
    "TaskStage",
    "Topic",
    "Vectors",
    "batch_result",
    "promotion_result",
    "read_promotion",
    "unknown_kind",
]

log = logging.getLogger(__name__)

CHAT = "chat"

Vectors: TypeAlias = "npt.NDArray[np.float32]"


class PageText(NamedTuple):
    """What a task sees of a page; either side may be empty."""

    user_input: str
    agent_response: str
    timestamp: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages of one (user, assistant), oldest first.

    Attributes:
        pages: the n texts.
        vectors: float32, (n, d), of length one each (a page without content may have zeros).
    """

    pages: list[PageText]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Previous:
    """The page before a batch's first one, and how its chain stands.

    Attributes:
        vector: float32, (d,).
        overview: the running overview of the chain that ends with this page; may be empty.
    """

    page: PageText
    vector: Vectors
    overview: str


@dataclass(frozen=True, slots=True)
class Continuity:
    """The chains of a batch.

    Attributes:
        continues: for each page, whether it continues the page before it.
        overviews: for each page, the overview of its chain with that page in it; a model's may tell of the later pages
            of the chain in the batch, too. That of a chain's last page is kept.
    """

    continues: list[bool]
    overviews: list[str]


@dataclass(frozen=True, slots=True)
class Topic:
    """What some pages of a batch are about.

    Attributes:
        theme: a few words; empty where the pages hold no words.
        keywords: readable words, the most telling first.
        content: a short summary.
        pages: indices into the batch, ascending, at least one.
    """

    theme: str
    keywords: list[str]
    content: str
    pages: list[int]


class PageFact(NamedTuple):
    """Something that was said on a page, given by its index among those that were asked about."""

    text: str
    page: int


class Knowledge(NamedTuple):
    """What pages tell about the user, and what the assistant said of itself."""

    user: list[PageFact]
    assistant: list[PageFact]


class Provider(Protocol):
    """Answers the tasks; whatever it raises fails the one task it was asked for."""

    def continuity(self, batch: Batch, previous: Previous | None) -> Continuity:
        """Tell which pages continue the page before them, and the overview of the chain after each."""
        ...

    def topics(self, batch: Batch) -> list[Topic]:
        """Split the batch into topics, not many; every page is in exactly one of them."""
        ...

    def profile(self, profile: str, pages: list[PageText]) -> str:
        """Return the user's profile with what the pages add to it."""
        ...

    def knowledge(self, pages: list[PageText]) -> Knowledge:
        """Tell facts about the user, and what the assistant said of itself."""
        ...


class TaskStage:
    """The stage of the LLM pool: answers units in the order they came, one a step."""

    def __init__(self, settings: config.Llm, long_term: config.LongTerm | None = None) -> None:
        self._settings = settings
        self._long_term = long_term or config.LongTerm()
        self._waiting: deque[tuple[int, str, Any]] = deque()
        self._prepared = False

    def prepare(self) -> dict[str, Any]:
        """Return the provider's name; it is loaded with the first unit, which not every opening of a store leads to."""
        self._prepared = True
        return {"provider": self._settings.provider}

    @cached_property
    def _provider(self) -> Provider:
        return _make_provider(self._settings, self._long_term)

    def accept(self, unit_id: int, kind: str, payload: Any) -> None:
        """Queue a unit of kind ``batch`` or ``promotion``."""
        self._waiting.append((unit_id, kind, payload))

    @property
    def pending(self) -> bool:
        """Is a unit waiting?"""
        return bool(self._waiting)

    def step(self, report: Report) -> None:
        """Answer the oldest unit and report it; one that raises fails alone."""
        unit_id, kind, payload = self._waiting.popleft()
        report.started([unit_id])
        try:
            result = self._answer(kind, payload)
        except MemoryError:
            raise  # no fault of the task's: this process ends, and the next one begins with all the memory there is
        except Exception as error:
            log.exception("unit %d (%s) failed", unit_id, kind)
            report.failed(unit_id, f"{kind}: {type(error).__name__}: {error}")
        else:
            report.done(unit_id, result)

    def close(self) -> None:
        """Drop what was accepted."""
        self._waiting.clear()

    def _answer(self, kind: str, payload: Any) -> dict[str, Any]:
        if not self._prepared:
            raise RuntimeError("a unit came before prepare(); call it first")
        provider = self._provider
        if kind == "batch":
            asked = BatchAsked.read(payload)
            topics = provider.topics(asked.homeless) if asked.homeless.pages else []
            return batch_result(provider.continuity(asked.batch, asked.previous), topics)
        if kind == "promotion":
            profile, pages = read_promotion(payload)
            return promotion_result(provider.profile(profile, pages), provider.knowledge(pages))
        raise unknown_kind(kind)


class BatchAsked(NamedTuple):
    """A unit of kind ``batch``, read; ``homeless`` are those of its pages that topics are wanted of."""

    batch: Batch
    previous: Previous | None
    homeless: Batch

    @classmethod
    def read(cls, payload: dict[str, Any]) -> BatchAsked:
        """Return a payload as what it asks; one that can't be read raises ValueError, TypeError or LookupError."""
        pages = _pages(payload)
        batch = Batch(pages, _rows(payload["vectors"], len(pages), payload["dimension"]))
        homeless = payload["homeless"]
        part = batch
        if homeless != list(range(len(pages))):
            part = Batch([pages[index] for index in homeless], batch.vectors[homeless])
        return cls(batch, _previous(payload), part)


def read_promotion(payload: dict[str, Any]) -> tuple[str, list[PageText]]:
    """Return the profile and the pages of a unit of kind ``promotion``."""
    pages = _pages(payload)
    return payload["profile"], pages


def batch_result(continuity: Continuity, topics: list[Topic], owed: Sequence[str] = ()) -> dict[str, Any]:
    """Return the result of a unit of kind ``batch``."""
    return {**asdict(continuity), "topics": [asdict(topic) for topic in topics], "owed": list(owed)}


def promotion_result(profile: str, knowledge: Knowledge, owed: Sequence[str] = ()) -> dict[str, Any]:
    """Return the result of a unit of kind ``promotion``."""
    facts = {whose: [fact._asdict() for fact in facts] for whose, facts in knowledge._asdict().items()}
    return {"profile": profile, **facts, "owed": list(owed)}


def unknown_kind(kind: str) -> ValueError:
    """Return the error that says so."""
    return ValueError(f"unknown kind of unit {kind!r}; known are batch and promotion, and each of them again")


def _make_provider(settings: config.Llm, long_term: config.LongTerm) -> Provider:
    from mos_pipeline.stages.extractive import Extractive  # late: it builds on the types above

    return Extractive(settings, long_term)


def _pages(payload: dict[str, Any]) -> list[PageText]:
    return [PageText(*page) for page in payload["pages"]]


def _previous(payload: dict[str, Any]) -> Previous | None:
    previous = payload["previous"]
    if previous is None:
        return None
    vector = _rows(previous["vector"], 1, payload["dimension"])[0]
    return Previous(PageText(*previous["page"]), vector, previous["overview"])


def _rows(data: bytes, count: int, dimension: int) -> Vectors:
    """Return float16 bytes as float32 rows; a length that doesn't fit raises ValueError."""
    import numpy as np

    return np.frombuffer(data, dtype=np.float16).reshape(count, dimension).astype(np.float32)
