"""A scope's mid- and long-term memory as a whole: STATE frames, which replace what the events before them tell.

A body is ``[[scope, …], dimension, vectors]``; a scope is the fields of ``Checkpoint`` without its vectors, and
``taken_over`` and ``owed`` last, which may be missing: the first version wrote neither, and the latter is left out
where nothing is owed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.engine.bearers import give_vectors, groups
from mos_pipeline.memory.long_term import Fact
from mos_pipeline.memory.owed import Owed
from mos_pipeline.memory.session import Session
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import decode, encode, pack_seqs, unpack_seqs
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.store.codec import pack_vectors, unpack_vectors

__all__ = ["Checkpoint", "applied", "decode_checkpoints", "encode_checkpoints", "enter", "take"]

Vectors = npt.NDArray[np.float16]


class Checkpoint(NamedTuple):
    """A scope's memory at one moment.

    Attributes:
        batched: the pages whose batches are applied, ascending.
        mid_term, chains, long_term: as their ``as_plain`` tells them.
        remake: pages that the profile is to be made from anew.
        taken_over: as the scope's.
        owed: as its ``as_plain`` tells it; empty where nothing is.
        with_vector: for each session, fact of the user and fact of the assistant, in this order: has it a vector?
        vectors: float16 (v, dimension), of those that have one.
    """

    user_id: str
    assistant_id: str
    batched: list[int]
    mid_term: list[Any]
    chains: list[Any]
    long_term: list[Any]
    remake: list[int]
    taken_over: list[bytes]
    owed: list[Any]
    with_vector: list[bool]
    vectors: Vectors

    def pages_told_of(self) -> set[int]:
        """Return every page that it tells of: those of sessions and chains, of facts and of the profile."""
        _, _, sessions = self.mid_term
        linked, overviews = self.chains
        (_, _, profile), *bases, _ = self.long_term[:4]
        origins = chain.from_iterable(self.long_term[4:])
        facts = [Fact.from_plain(fact).seqs for _, base in bases for fact in base]
        known = [Session.from_plain(session) for session in sessions]
        of_sessions = [seqs for session in known for seqs in (session.seqs, session.tells_of)]
        made_at = [seq for seq, _ in overviews]
        return set(chain(made_at, profile, origins, self.remake, *linked, *facts, *of_sessions))

    @property
    def without_vectors(self) -> Checkpoint:
        """The same of vectors that are of no use here, as another model made them."""
        return self._replace(with_vector=[False] * len(self.with_vector), vectors=self.vectors[:0])


def applied(state: MemoryState, scope: Scope, under_way: Collection[int]) -> list[int]:
    """Return the pages of ``scope`` whose batches are applied, ascending; those of ``under_way`` have only begun."""
    pages = state.pages.seqs_of(scope.number)[: scope.given]
    batched: list[int] = pages[~np.isin(pages, [*scope.gaps, *under_way])].tolist()
    return batched


def take(state: MemoryState, scope: Scope, batched: list[int], read: Callable[[list[int]], Vectors]) -> Checkpoint:
    """Return the scope's memory as it is now.

    Args:
        state: what the scope is part of.
        scope: whose memory.
        batched: the pages whose batches are applied, ascending.
        read: returns the vectors of rows.
    """
    rows = [bearer.row for group in groups(scope) for bearer, _ in group.bearers]
    return Checkpoint(
        scope.user_id,
        scope.assistant_id,
        batched,
        scope.mid_term.as_plain(),
        state.chains.as_plain(batched),
        scope.long_term.as_plain(),
        list(scope.remake),
        list(scope.taken_over),
        scope.owed.as_plain(),
        [row >= 0 for row in rows],
        read([row for row in rows if row >= 0]),
    )


def encode_checkpoints(checkpoints: Sequence[Checkpoint], dimension: int) -> bytes:
    """Return the frame body of checkpoints."""
    empty = np.empty((0, max(1, dimension)), np.float16)
    vectors = np.concatenate([empty, *(one.vectors for one in checkpoints if len(one.vectors))])
    packed = list(map(_packed, checkpoints))
    return encode([packed, max(1, dimension), pack_vectors(vectors)])


def _packed(one: Checkpoint) -> list[Any]:
    packed = [*one[:2], pack_seqs(one.batched), *one[3:7], one.with_vector, one.taken_over]
    return [*packed, one.owed] if one.owed else packed


def decode_checkpoints(body: bytes) -> list[Checkpoint]:
    """Return what ``encode_checkpoints`` was given."""
    packed, dimension, vectors = decode(body)
    rows, first, found = unpack_vectors(vectors, dimension), 0, list[Checkpoint]()
    for user, assistant, batched, mid_term, chains, long_term, remake, with_vector, *more in packed:
        last = first + sum(with_vector)
        taken_over, owed = (*more, [], [])[:2]
        memory = (unpack_seqs(batched), mid_term, chains, long_term, remake, taken_over, owed)
        found.append(Checkpoint(user, assistant, *memory, with_vector, rows[first:last]))
        first = last
    return found


def enter(checkpoint: Checkpoint, state: MemoryState, scope: Scope, pool: VectorPool) -> None:
    """Put the checkpoint in place of what is known of ``scope``."""
    pool.release([bearer.row for group in groups(scope) for bearer, _ in group.bearers if bearer.row >= 0])
    state.adopt(scope, checkpoint.mid_term, checkpoint.chains, checkpoint.long_term)
    scope.remake, scope.taken_over = list(checkpoint.remake), list(checkpoint.taken_over)
    scope.owed = Owed.from_plain(checkpoint.owed)
    vectors, has_vector = iter(checkpoint.vectors), iter(checkpoint.with_vector)
    for owner, bearers in groups(scope):
        mine = [(bearer, tag, next(vectors)) for bearer, tag in bearers if next(has_vector)]
        give_vectors(pool, owner, mine)
