"""What crosses a boundary: pages and answers for callers, msgpack for processes and files.

A page's record, in the journal and in segments, is the msgpack array
``[user_id, assistant_id, user_input, agent_response, timestamp, metadata, page_id, source]``; ``page_id`` is nil where
the library made the id (it follows from the sequence number), ``source`` is nil or ``[digest, ordinal]`` of the file
the page came from. Strings are UTF-8 with lone surrogates passed through, since chat exports hold them.

A tombstone, which forgets pages, is a record of its own sequence number: ``["forget", numbers]``, the numbers as
``pack_seqs`` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import msgpack

from mos_pipeline.errors import InputError

__all__ = [
    "OF_USER",
    "QUOTES",
    "STATES",
    "Added",
    "Compacted",
    "Hit",
    "Knowledge",
    "KnowledgeHit",
    "Page",
    "PageRecord",
    "Parts",
    "Profile",
    "Repaid",
    "Response",
    "Retrieved",
    "Session",
    "SourceMark",
    "check_size",
    "decode",
    "decode_record",
    "decode_tombstone",
    "embedded_text",
    "encode",
    "encode_tombstone",
    "has_compound_key",
    "is_shallow",
    "is_tombstone",
    "nested_too_deeply",
    "own_words",
    "pack_seqs",
    "stated_fact",
    "unpack_seqs",
]

STATES = "mos_pipeline.states"  # in a page's metadata: what it says is a fact as it stands, of whom this key tells
OF_USER = "user"
QUOTES = "mos_pipeline.quotes"  # in a page's metadata: the answer quotes other pages, and nobody said it
MAX_LEVELS = 512
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_TOMBSTONE = b"\x92\xa6forget"  # an array of two, the first a string: no page's record begins so


def encode(message: Any) -> bytes:
    """Return ``message`` (None, bool, int, float, str, bytes, lists, dicts) as msgpack bytes."""
    packed: bytes = msgpack.packb(message, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def decode(data: bytes | memoryview) -> Any:
    """Return what ``encode`` was given; tuples come back as lists."""
    return msgpack.unpackb(data, raw=False, unicode_errors="surrogatepass", strict_map_key=False)


def decode_all(data: bytes) -> Iterator[Any]:
    """Yield what ``encode`` was given for each of the messages that ``data`` is made of, one after the other."""
    unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogatepass", strict_map_key=False, max_buffer_size=0)
    unpacker.feed(data)
    yield from unpacker


class SourceMark(NamedTuple):
    """Where a page came from: the bytes that name its source, and an ordinal, at least 0, that ascends through it."""

    digest: bytes
    ordinal: int


class PageRecord(NamedTuple):
    """A page as it is stored, field by field in the order of its msgpack array."""

    user_id: str
    assistant_id: str
    user_input: str
    agent_response: str
    timestamp: str
    metadata: dict[str, Any] | None
    page_id: str | None
    source: SourceMark | None


def check_size(user_id: str, size: int, limit: int) -> None:
    """Refuse a page that takes more bytes than ``store.max_page_bytes`` allows.

    Raises:
        InputError: it does.
    """
    if size > limit:
        raise InputError(
            f"a page of user {user_id!r:.100} was not accepted: it takes {size:,} bytes, store.max_page_bytes is "
            f"{limit:,}; split it, or raise that limit"
        )


def decode_record(data: bytes | memoryview) -> PageRecord:
    """Return the record that ``encode(tuple(record))`` made."""
    *fields, source = decode(data)
    return PageRecord._make([*fields, SourceMark._make(source) if source else None])


def pack_seqs(seqs: Iterable[int]) -> bytes:
    """Return sequence numbers as the msgpack array of their differences: a byte each where they lie close together."""
    packed: bytes = msgpack.packb([after - before for before, after in pairwise((0, *seqs))])
    return packed


def unpack_seqs(data: bytes) -> list[int]:
    """Return what ``pack_seqs`` was given.

    Raises:
        ValueError, TypeError: it is something else.
    """
    return list(accumulate(msgpack.unpackb(data), initial=0))[1:]


def encode_tombstone(seqs: Sequence[int]) -> bytes:
    """Return the record that forgets the pages ``seqs``, ascending and at least one.

    Raises:
        InputError: they are not.
    """
    if not seqs or seqs[0] < 0 or any(before >= after for before, after in pairwise(seqs)):
        raise InputError("a tombstone names pages by ascending numbers, and at least one")
    return encode(["forget", pack_seqs(seqs)])


def is_tombstone(body: bytes) -> bool:
    """Return whether a record is a tombstone, by how it begins."""
    return body.startswith(_TOMBSTONE)


def decode_tombstone(body: bytes) -> list[int] | None:
    """Return the pages that a tombstone forgets, ascending; None where ``body`` is the record of a page.

    Raises:
        ValueError, TypeError: it begins like a tombstone, and is none.
    """
    if not is_tombstone(body):
        return None
    _, packed = decode(body)
    return unpack_seqs(packed)


def is_shallow(metadata: Mapping[str, Any]) -> bool:
    """Return whether all values are scalars, or lists of scalars, as they nearly always are: told in no time."""
    kinds = set(map(type, metadata.values()))
    if kinds <= _SCALARS:
        return True
    lists = [value for value in metadata.values() if type(value) is list]
    return kinds - {list} <= _SCALARS and all(set(map(type, value)) <= _SCALARS for value in lists)


def has_compound_key(value: Any) -> bool:
    """Return whether a map anywhere in ``value`` has a tuple for a key: it could be packed, and not be unpacked."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if any(isinstance(key, tuple) for key in item):
                return True
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
    return False


def nested_too_deeply(value: Any) -> bool:
    """Return whether there are more than 512 levels of lists and maps: of some more, msgpack reads none back."""
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list | tuple)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def stated_fact(record: PageRecord) -> str:
    """Return the fact of the user that a page is, as it stands (``STATES`` in its metadata); empty for any other."""
    return record.user_input if record.metadata and record.metadata.get(STATES) == OF_USER else ""


def own_words(record: PageRecord) -> PageRecord:
    """Return the record as memory is made from it: an answer that only quotes other pages (``QUOTES``) left out.

    What it quotes is on those pages already, and was said by the user more often than by the assistant.
    """
    return record._replace(agent_response="") if record.metadata and record.metadata.get(QUOTES) else record


def embedded_text(user_input: str, agent_response: str) -> str:
    """Return the text whose embedding stands for a page (MemoryOS: ``User: … Assistant: …``)."""
    return f"User: {user_input} Assistant: {agent_response}"


@dataclass(frozen=True, slots=True)
class Page:
    """One exchange between a user and an assistant.

    Attributes:
        page_id: the id given to ``add``, or the one the store made.
        timestamp: as given; ``YYYY-MM-DD HH:MM:SS`` of the moment of acceptance where none was. Data, not an order.
        metadata: as given, read-only by convention.
    """

    page_id: str
    user_id: str
    assistant_id: str
    user_input: str
    agent_response: str
    timestamp: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a page's score is made of: each part, times its weight, the words' ones divided by ``limit``.

    Attributes:
        dense: cosine of query and page, -1 to 1; None while the page has no vector, or where the query had none.
        words: BM25 of query and page, 0 where they share no word.
        window: BM25 of query and the page with its neighbours in its sitting.
        sitting: BM25 of query and the page's whole sitting.
        limit: what a text that is full of the query's words would reach; 0 where none of them occurs.
    """

    dense: float | None
    words: float
    window: float
    sitting: float
    limit: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that was found.

    Attributes:
        score: the joined score, higher is better; comparable within one answer only.
        dense: cosine of query and page, -1 to 1; None while the page has no vector, or where the query had none.
        words: BM25 of query and page, 0 where they share no word.
        overview: the running overview of the chain of pages it belongs to; empty where none was made yet.
        session_id: the topic it belongs to, see ``MemoryPipeline.sessions``; None where it is in none.
        parts: what the score is made of; None unless ``explain`` was asked for.
    """

    score: float
    page: Page
    dense: float | None
    words: float
    overview: str = ""
    session_id: int | None = None
    parts: Parts | None = None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A fact about the user, or about the assistant.

    Attributes:
        timestamp: when it was last stated, as the page's timestamp tells it.
        page_ids: the pages it was stated on, oldest first.
    """

    text: str
    timestamp: str
    page_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnowledgeHit:
    """A fact that was found; ``score`` is the cosine of query and fact, -1 to 1."""

    score: float
    fact: Knowledge


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a user as a person; ``text`` is empty while nothing is, ``updated`` the time it was written."""

    text: str
    updated: str


@dataclass(frozen=True, slots=True)
class Session:
    """A topic of mid-term memory.

    Attributes:
        session_id: unique within its user and assistant.
        timestamp: that of its first page, as given.
        heat: what promotes it to long-term memory, at the moment of the call.
        visits: retrievals that found pages of it since it was last promoted.
        page_ids: its pages, oldest first.
    """

    session_id: int
    summary: str
    keywords: tuple[str, ...]
    timestamp: str
    heat: float
    visits: int
    page_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What ``retrieve`` found.

    Attributes:
        pages: the best pages, best first, or oldest first where that was asked for.
        short_term: the user's latest pages, oldest first, whether processed or not.
        degraded: True where the query's vector was not there in time and words alone decided.
        user_knowledge: facts about the user, nearest first.
        assistant_knowledge: facts about the assistant, nearest first.
        profile: the user's profile; empty while there is none.
        overviews: the overviews of the chains of ``pages``, each once, in the order of the pages.
    """

    pages: list[Hit]
    short_term: list[Page]
    degraded: bool
    user_knowledge: list[KnowledgeHit] = field(default_factory=list)
    assistant_knowledge: list[KnowledgeHit] = field(default_factory=list)
    profile: str = ""
    overviews: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that was made from memory.

    Attributes:
        text: the answer, without what a model thought aloud.
        page_id: the page that the exchange became; None where it was not to be added.
        complete: False where a stream was closed before its end; ``text`` is what had been handed out by then.
        provider: who answered: "extractive" where no model did and pages are quoted, "caller" for a model that was
            handed in, else the setting ``llm.provider``.
        prompt_version: that of the prompt's wording; 0 where no model was asked.
        prompt_tokens: about how many tokens the prompt took, four characters for one; 0 where no model was asked.
        left_out: how many pages, facts and other pieces of memory the budget had no room for.
        retrieved: what memory told, as ``retrieve`` returns it.
    """

    text: str
    page_id: str | None
    complete: bool
    provider: str
    prompt_version: int
    prompt_tokens: int
    left_out: int
    retrieved: Retrieved


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a page of a batch.

    Attributes:
        page_id: its id; None where it was refused, or where the record that its ``source`` names was accepted before.
        new: whether it was accepted now; False for a page that was there already.
        refused: why it was not taken; None where it was, or was there.
    """

    page_id: str | None
    new: bool
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Repaid:
    """What came of asking again for what a model owes; one task of one page counts as one.

    Attributes:
        repaid: how many were answered, and replace what had stood in for them.
        owed: how many are owed still.
    """

    repaid: int
    owed: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction has changed: bytes of the segments that it wrote anew, before and after."""

    before: int
    after: int
