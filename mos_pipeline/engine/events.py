"""What happened to a scope's mid- and long-term memory, in the order in which it happened: EVENTS frames.

A body is ``[[event, …], dimension, vectors]``, an event ``[tag, user id, assistant id, field, …]``; ``vectors`` are the
embeddings of what the events brought (summaries of founded sessions, new facts), one after the other. Rows in this
process's vector pool are left out, and so is the last field of a batch or a promotion, what is owed, where nothing is.
The BATCH frames of the first format hold batches alone, and are still read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mos_pipeline.memory.outcomes import BatchOutcome, BatchRepaid, Placed, PromotionOutcome, PromotionRepaid, Told
from mos_pipeline.messages import decode, encode
from mos_pipeline.store.codec import pack_vectors, unpack_vectors

__all__ = [
    "BatchDone",
    "Event",
    "Forgotten",
    "Lifted",
    "Promoted",
    "Repaid",
    "Visited",
    "decode_batches",
    "decode_events",
    "encode_events",
]

Vectors = npt.NDArray[np.float16]
RowBearer = TypeVar("RowBearer", Placed, Told)


class BatchDone(NamedTuple):
    """A batch was applied.

    Attributes:
        seqs: all its pages, those set aside included.
        vectors: float16 (f, dimension): summary embeddings of the sessions it founded, in the order of ``placed``; none
            where those that were stored are of another model.
    """

    seqs: Sequence[int]
    outcome: BatchOutcome
    vectors: Vectors


class Promoted(NamedTuple):
    """Pages became long-term memory; ``vectors``, float16 (f, dimension), are the new facts'; or none, likewise."""

    outcome: PromotionOutcome
    vectors: Vectors


class Forgotten(NamedTuple):
    """Pages were forgotten, and with them what was derived from them."""

    seqs: Sequence[int]


class Lifted(NamedTuple):
    """Summaries or facts that had no vector, or one of another model, have one now.

    Attributes:
        kind: which of ``bearers.groups`` they are of.
        ids: of the sessions, or of the facts.
        vectors: float16 (n, dimension), in their order.
    """

    kind: int
    ids: list[int]
    vectors: Vectors


class Visited(NamedTuple):
    """How often sessions were visited: ``[[session id, visits, last visit in seconds since 1970, accesses], …]``."""

    sessions: list[list[Any]]


class Repaid(NamedTuple):
    """A model's answer took the place of what had stood in for it.

    ``vectors``, float16 (f, dimension), are those of summaries, as for ``BatchDone``, or of facts, as for ``Promoted``.
    """

    outcome: BatchRepaid | PromotionRepaid
    vectors: Vectors


What = BatchDone | Promoted | Forgotten | Visited | Repaid | Lifted


class Event(NamedTuple):
    """What happened, and to whose memory."""

    user_id: str
    assistant_id: str
    what: What

    @property
    def pages(self) -> int:
        """How many pages it is about: what it counts for when events make a frame."""
        match self.what:
            case Visited(sessions):
                return len(sessions)
            case Lifted(ids=ids):
                return len(ids)
        return len(_seqs(self.what))

    @property
    def last_page(self) -> int:
        """The highest page it is about; -1 for none."""
        return -1 if isinstance(self.what, Visited | Lifted) else max(_seqs(self.what), default=-1)

    @property
    def without_vectors(self) -> Event:
        """The same of vectors that are of no use here, as another model made them."""
        if isinstance(self.what, BatchDone | Promoted | Repaid | Lifted):
            return self._replace(what=self.what._replace(vectors=_NO_VECTORS))
        return self


def _seqs(what: BatchDone | Promoted | Forgotten | Repaid) -> Sequence[int]:
    if isinstance(what, BatchDone | Forgotten):
        return what.seqs
    outcome = what.outcome
    if isinstance(outcome, BatchRepaid):
        return [*outcome.continuity, *(seq for placed in outcome.placed for seq in placed.seqs)]
    return [*outcome.seqs, *(seq for told in outcome.told for seq in told.seqs)]


def encode_events(events: Sequence[Event], dimension: int) -> bytes:
    """Return the frame body of events."""
    bearing = BatchDone | Promoted | Repaid | Lifted
    vectors = [event.what.vectors for event in events if isinstance(event.what, bearing)]
    joined = np.concatenate([np.empty((0, max(1, dimension)), np.float16), *(part for part in vectors if len(part))])
    packed = [[_TAGS[type(event.what)], *event[:2], *_packed(event.what)] for event in events]
    return encode([packed, max(1, dimension), pack_vectors(joined)])


def _packed(what: What) -> list[Any]:
    match what:
        case BatchDone(seqs, outcome):
            *fields, owed = outcome._replace(placed=_without_rows(outcome.placed))
            packed = [seqs, *fields, *([owed] if owed else [])]
        case Promoted(outcome):
            *fields, owed = outcome._replace(told=_without_rows(outcome.told))
            packed = [*fields, *([owed] if owed else [])]
        case Repaid(outcome):
            packed = _packed_repaid(outcome)
        case Forgotten(seqs):
            packed = [np.array(seqs, "<i8").tobytes()]
        case Visited(sessions):
            packed = [sessions]
        case Lifted(kind, ids):
            packed = [kind, ids]
    return packed


def _packed_repaid(outcome: BatchRepaid | PromotionRepaid) -> list[Any]:
    if isinstance(outcome, BatchRepaid):
        return [True, *outcome._replace(placed=_without_rows(outcome.placed))]
    return [False, *outcome._replace(told=_without_rows(outcome.told))]


def _without_rows(entries: Iterable[RowBearer]) -> list[RowBearer]:
    return [entry._replace(row=-1) for entry in entries]


def decode_events(body: bytes) -> list[Event]:
    """Return what ``encode_events`` was given."""
    packed, dimension, vectors = decode(body)
    rows = _Rows(unpack_vectors(vectors, dimension))
    return [Event(user, assistant, _UNPACK[tag](rows, *fields)) for tag, user, assistant, *fields in packed]


def decode_batches(body: bytes) -> list[Event]:
    """Return the batches of a BATCH frame; when they were applied is not known, and counts as long ago."""
    packed, dimension, vectors = decode(body)
    rows = _Rows(unpack_vectors(vectors, dimension))
    return [
        Event(user, assistant, _batch(rows, seqs, live, links, overviews, placed, 0.0, []))
        for user, assistant, seqs, live, links, overviews, placed in packed
    ]


class _Rows:
    """Vectors, given out from the first on."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._next = 0

    def take(self, count: int) -> Vectors:
        self._next += count
        return self._vectors[self._next - count : self._next]


def _batch(
    rows: _Rows,
    seqs: list[int],
    live: list[int],
    links: list[int],
    overviews: list[list[Any]],
    placed: list[list[Any]],
    time: float,
    evicted: list[int],
    owed: Sequence[str] = (),
) -> BatchDone:
    entries = list(starmap(Placed, placed))
    outcome = BatchOutcome(live, links, overviews, entries, time, evicted, list(owed))
    return BatchDone(seqs, outcome, rows.take(sum(entry.founded for entry in entries)))


def _promotion(
    rows: _Rows,
    seqs: list[int],
    profile: str,
    timestamp: str,
    told: list[list[Any]],
    time: float,
    owed: Sequence[str] = (),
) -> Promoted:
    entries = list(starmap(Told, told))
    outcome = PromotionOutcome(seqs, profile, timestamp, entries, time, list(owed))
    return Promoted(outcome, rows.take(sum(entry.new for entry in entries)))


def _repaid(rows: _Rows, of_batch: bool, *fields: Any) -> Repaid:
    if of_batch:
        batch = BatchRepaid(*fields)
        batch = batch._replace(placed=list(starmap(Placed, batch.placed)))
        return Repaid(batch, rows.take(sum(entry.founded for entry in batch.placed)))
    promotion = PromotionRepaid(*fields)
    promotion = promotion._replace(told=list(starmap(Told, promotion.told)))
    return Repaid(promotion, rows.take(sum(fact.new for fact in promotion.told)))


def _forgotten(_: _Rows, seqs: bytes) -> Forgotten:
    return Forgotten(np.frombuffer(seqs, "<i8").tolist())


def _visited(_: _Rows, sessions: list[list[Any]]) -> Visited:
    return Visited(sessions)


def _lifted(rows: _Rows, kind: int, ids: list[int]) -> Lifted:
    return Lifted(kind, ids, rows.take(len(ids)))


_TAGS = {BatchDone: 0, Promoted: 1, Forgotten: 2, Visited: 3, Repaid: 4, Lifted: 5}
_UNPACK: tuple[Any, ...] = (_batch, _promotion, _forgotten, _visited, _repaid, _lifted)
_NO_VECTORS: Vectors = np.empty((0, 1), np.float16)
