"""What of a scope's memory has a vector beside its pages: sessions, by their summaries, and facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mos_pipeline.memory.long_term import Fact
from mos_pipeline.memory.session import Session
from mos_pipeline.memory.state import Scope
from mos_pipeline.runtime.vector_pool import VectorPool

__all__ = ["Bearer", "Group", "current", "give_vectors", "groups", "id_of", "text_of"]

Bearer = Session | Fact
Vector = npt.NDArray[np.float16]
OF_USER = (True, False)  # facts of the user, of the assistant: the groups behind that of the sessions


class Group(NamedTuple):
    """Bearers of one kind: their owner key in the pool, and each with its tag there."""

    owner: int
    bearers: list[tuple[Bearer, int]]


def groups(scope: Scope) -> Iterator[Group]:
    """Yield sessions, facts of the user, facts of the assistant."""
    yield Group(scope.session_rows, [(session, session.session_id) for session in scope.mid_term.sessions])
    for of_user in OF_USER:
        facts = scope.facts(of_user=of_user).facts
        yield Group(scope.fact_rows(of_user=of_user), [(fact, scope.fact_tag(fact.fact_id)) for fact in facts])


def current(scope: Scope, kind: int, bearer_id: int) -> tuple[Bearer, int] | None:
    """Return the bearer with this id in the ``kind``-th group, and its tag; None where it is there no more."""
    if not kind:
        session = scope.mid_term.get(bearer_id)
        return None if session is None else (session, bearer_id)
    fact = scope.facts(of_user=OF_USER[kind - 1]).get(bearer_id)
    return None if fact is None else (fact, scope.fact_tag(bearer_id))


def id_of(bearer: Bearer) -> int:
    """Return the id by which ``current`` finds it."""
    return bearer.session_id if isinstance(bearer, Session) else bearer.fact_id


def text_of(bearer: Bearer) -> str:
    """Return the text whose embedding stands for it."""
    return bearer.summary if isinstance(bearer, Session) else bearer.text


def give_vectors(pool: VectorPool, owner: int, bearers: Sequence[tuple[Bearer, int, Vector]]) -> None:
    """Give bearers, each with its tag, their vectors: they are found by them from now on."""
    if bearers:
        rows = pool.allocate(owner, len(bearers))
        pool.write(rows, np.array([vector for _, _, vector in bearers]))
        pool.commit(rows, np.array([tag for _, tag, _ in bearers], np.int64))
        for (bearer, _, _), row in zip(bearers, rows.tolist(), strict=True):
            bearer.row = row
